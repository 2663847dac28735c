"""The visual word of each patch, as in BEiT (SimMIM, arXiv:2111.09886, section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.encoders.patches import patchify
from vlp.targets.classes import CODED_TARGETS, CodedTargetConfig
from vlp.targets.codes import nearest_codes
from vlp.targets.target import REBUILD_TARGETS, RebuildTarget


class ImageTokenizer(Protocol):
    """Turns images into a square map of visual words."""

    num_tokens: int
    resolution: int

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, S) int64, in 0..num_tokens-1."""
        ...


@REBUILD_TARGETS.register
@CODED_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class TokenTargetConfig(CodedTargetConfig):
    """The visual word of each patch, as in BEiT (arXiv:2106.08254): the code nearest in direction.

    Without a file, the codes are random (arXiv:2202.01855).
    """

    name: Literal["tokens"] = "tokens"
    resolution: int | None = 14
    """Visual words per side."""
    num_codes: int = 8192

    vector_size: ClassVar[int] = 48

    def vectors(self, images: Tensor) -> Tensor:
        """Patches of 4 x 4 averaged colours, of unit length."""
        colors = self.colors(images, 4 * self.side(images.shape[-1]))
        return F.normalize(patchify(colors, 4), dim=2)

    def default_codes(self) -> Tensor:
        codes = torch.randn(self.num_codes, self.vector_size, generator=Generator().manual_seed(0))
        return F.normalize(codes, dim=1)

    def build(self, image_size: int) -> "TokenTarget":
        return TokenTarget(PatchQuantizer(self, image_size))


class TokenTarget(RebuildTarget):
    """Classification of each patch among the words of a tokenizer."""

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.channels, self.resolution = tokenizer.num_tokens, tokenizer.resolution

    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(predictions.float(), self.tokenizer(images), reduction="none")

    def pixels(self, predictions: Tensor) -> None:
        return None


class PatchQuantizer(nn.Module):
    """The smallest image tokenizer: the code nearest in direction to a patch of averaged colours."""

    codes: Tensor

    def __init__(self, config: TokenTargetConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.resolution, self.num_tokens = config.side(image_size), config.num_codes
        self.register_buffer("codes", F.normalize(config.read_codes(), dim=1))

    def forward(self, images: Tensor) -> Tensor:
        nearest = nearest_codes(self.config.vectors(images), self.codes)
        return nearest.unflatten(1, (self.resolution, self.resolution))
