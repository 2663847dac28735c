"""The nearest colour of a palette, as in iGPT (SimMIM, arXiv:2111.09886, section 3.4)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.targets.classes import CODED_TARGETS, CodedTargetConfig
from vlp.targets.codes import nearest_codes
from vlp.targets.target import REBUILD_TARGETS, RebuildTarget


@REBUILD_TARGETS.register
@CODED_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class ColorClusterTargetConfig(CodedTargetConfig):
    """The nearest colour of a palette, as in iGPT; colours are in [-1, 1], evenly spaced without a file."""

    name: Literal["color_clusters"] = "color_clusters"
    num_codes: int = 512

    vector_size: ClassVar[int] = 3

    def vectors(self, images: Tensor) -> Tensor:
        return self.colors(images, self.side(images.shape[-1])).flatten(2).transpose(1, 2)

    def default_codes(self) -> Tensor:
        count = round(self.num_codes ** (1 / 3))
        if count**3 != self.num_codes:
            raise ValueError(f"num_codes must be a cube, such as 512, without codes; got {self.num_codes}")
        levels = (2 * torch.arange(count) + 1) / count - 1  # the middles of equal parts
        return torch.cartesian_prod(levels, levels, levels)

    def build(self, image_size: int) -> "ColorClusterTarget":
        return ColorClusterTarget(self, image_size)


class ColorClusterTarget(RebuildTarget):
    """Classification of each pixel among the colours of the palette."""

    codes: Tensor

    def __init__(self, config: ColorClusterTargetConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.resolution, self.channels = config.side(image_size), config.num_codes
        self.register_buffer("codes", config.read_codes())

    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(predictions.float(), self.classes(images), reduction="none")

    def classes(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, S) int64."""
        nearest = nearest_codes(self.config.vectors(images), self.codes)
        return nearest.unflatten(1, (self.resolution, self.resolution))

    def pixels(self, predictions: Tensor) -> Tensor:
        return self.config.images(self.codes[predictions.argmax(dim=1)].permute(0, 3, 1, 2))
