"""Targets that are classes: colours, bins of each channel, visual words (arXiv:2111.09886, section 3.4)."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.encoders.patches import patchify
from vlp.normalization import Normalization, denormalize, normalize
from vlp.objectives.quantizer import nearest_codes
from vlp.objectives.rebuild_targets import REBUILD_TARGETS, RebuildTarget, RebuildTargetConfig, shrink
from vlp.registry import Registry

CODED_TARGETS = Registry()


@dataclass(frozen=True, kw_only=True)
class ClassTargetConfig(RebuildTargetConfig):
    """A target whose classes are told by colours, whatever the images were normalized by."""

    normalization: Normalization = "imagenet"
    """How the images were normalized; as `data.normalization`."""

    def colors(self, images: Tensor, side: int) -> Tensor:
        """The images' colours, averaged to a smaller map: (B, 3, H, W) -> (B, 3, side, side) in [-1, 1]."""
        return 2 * denormalize(shrink(images, side), self.normalization) - 1

    def images(self, colors: Tensor) -> Tensor:
        """The inverse of `colors`, for one side."""
        return normalize(255 * (colors + 1) / 2, self.normalization)


@dataclass(frozen=True, kw_only=True)
class CodedTargetConfig(ClassTargetConfig):
    """A target whose classes are the codes nearest to vectors; `vlp fit-codes` finds codes that fit."""

    num_codes: int
    """K, classes."""
    codes: Path | None = None
    """.npy file of (num_codes, P) codes."""

    vector_size: ClassVar[int]
    """P, numbers per code."""

    def __post_init__(self) -> None:
        if self.num_codes < 2:
            raise ValueError(f"num_codes must be at least 2, got {self.num_codes}")

    @abstractmethod
    def vectors(self, images: Tensor) -> Tensor:
        """What the codes are compared to, place by place: (B, 3, H, W) -> (B, S^2, P)."""

    @abstractmethod
    def default_codes(self) -> Tensor:
        """Codes where no file is given: (num_codes, P); a ValueError if there are none of this number."""

    def read_codes(self) -> Tensor:
        """The codes: (num_codes, P) float32.

        Raises:
            ValueError: the file is missing, is no .npy file, or holds something else; or none is given and
                there are no default codes of this number.
        """
        if self.codes is None:
            return self.default_codes()
        if not self.codes.is_file():
            raise ValueError(f"codes: no such file: {self.codes}; make one with `vlp fit-codes`")
        try:
            codes = torch.from_numpy(np.load(self.codes)).float()
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"codes: {self.codes} is no .npy file of numbers") from error
        expected = (self.num_codes, self.vector_size)
        if tuple(codes.shape) != expected:
            raise ValueError(f"codes: {self.codes} holds {tuple(codes.shape)} numbers, not {expected}")
        if not codes.abs().max() <= 1.001:
            raise ValueError(f"codes: {self.codes} holds numbers outside of [-1, 1]")
        return codes


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


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class ColorBinTargetConfig(ClassTargetConfig):
    """The bin that each channel's value falls in."""

    name: Literal["color_bins"] = "color_bins"
    num_bins: int = 8
    """Equal parts of [0, 255]."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_bins <= 256:
            raise ValueError(f"num_bins must be in [2, 256], got {self.num_bins}")

    def build(self, image_size: int) -> "ColorBinTarget":
        return ColorBinTarget(self, image_size)


class ColorBinTarget(RebuildTarget):
    """Three classifications of each pixel, of which the errors are averaged."""

    def __init__(self, config: ColorBinTargetConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.side(image_size)
        self.channels = 3 * config.num_bins

    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        logits = predictions.float().unflatten(1, (3, -1)).transpose(1, 2)  # (B, bins, 3, S, S)
        return F.cross_entropy(logits, self.classes(images), reduction="none").mean(dim=1)

    def classes(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, S, S) int64."""
        values = 255 * (self.config.colors(images, self.resolution) + 1) / 2
        # Whole numbers again, where nothing was averaged.
        bins = values.round(decimals=2) * self.config.num_bins / 256
        return bins.long().clamp(max=self.config.num_bins - 1)

    def pixels(self, predictions: Tensor) -> Tensor:
        bins = predictions.unflatten(1, (3, -1)).argmax(dim=2)
        values = (bins + 0.5) * 256 / self.config.num_bins - 0.5  # the middle of each bin's whole numbers
        return self.config.images(2 * values / 255 - 1)


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
