"""Targets that are classes: colours, bins of each channel, visual words (arXiv:2111.09886, section 3.4)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.encoders.patches import patchify
from vlp.normalization import Normalization, denormalize
from vlp.objectives.quantizer import nearest_codes
from vlp.objectives.rebuild_targets import REBUILD_TARGETS, RebuildTarget, RebuildTargetConfig, shrink


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class ColorClusterTargetConfig(RebuildTargetConfig):
    """The nearest colour of a palette, as in iGPT."""

    name: Literal["color_clusters"] = "color_clusters"
    palette: Path | None = None
    """.npy file of (K, 3) colours in [-1, 1], such as iGPT's; None for 512 evenly spaced ones."""
    normalization: Normalization = "imagenet"
    """How the images were normalized; as `data.normalization`."""

    def build(self, image_size: int) -> "ColorClusterTarget":
        return ColorClusterTarget(self, image_size)


class ColorClusterTarget(RebuildTarget):
    """Classification of each pixel among the colours of the palette."""

    palette: Tensor

    def __init__(self, config: ColorClusterTargetConfig, image_size: int) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.side(image_size)
        palette = _even_palette() if config.palette is None else torch.from_numpy(np.load(config.palette))
        self.register_buffer("palette", palette.float())
        self.channels = len(palette)

    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(predictions.float(), self.classes(images), reduction="none")

    def classes(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, S) int64."""
        colors = 2 * denormalize(shrink(images, self.resolution), self.config.normalization) - 1
        nearest = nearest_codes(colors.flatten(2).transpose(1, 2), self.palette)
        return nearest.unflatten(1, (self.resolution, self.resolution))


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class ColorBinTargetConfig(RebuildTargetConfig):
    """The bin that each channel's value falls in."""

    name: Literal["color_bins"] = "color_bins"
    num_bins: int = 8
    """Equal parts of [0, 255]."""
    normalization: Normalization = "imagenet"
    """How the images were normalized; as `data.normalization`."""

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
        values = denormalize(shrink(images, self.resolution), self.config.normalization) * 255
        # Whole numbers again, where nothing was averaged.
        bins = values.round(decimals=2) * self.config.num_bins / 256
        return bins.long().clamp(max=self.config.num_bins - 1)


class ImageTokenizer(Protocol):
    """Turns images into a square map of visual words."""

    num_tokens: int
    resolution: int

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, S) int64, in 0..num_tokens-1."""
        ...


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class TokenTargetConfig(RebuildTargetConfig):
    """The visual word of each patch, as in BEiT (arXiv:2106.08254)."""

    name: Literal["tokens"] = "tokens"
    resolution: int | None = 14
    """Visual words per side."""
    num_tokens: int = 8192
    codes: Path | None = None
    """.npy file of (num_tokens, 48) codes that `fit_codes` found; None for random ones (arXiv:2202.01855)."""

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


class PatchQuantizer(nn.Module):
    """The smallest image tokenizer: the code nearest in direction to a patch of 4 x 4 averaged pixels."""

    codes: Tensor

    def __init__(self, config: TokenTargetConfig, image_size: int) -> None:
        super().__init__()
        self.resolution, self.num_tokens = config.side(image_size), config.num_tokens
        if config.codes is None:
            codes = torch.randn(config.num_tokens, 48, generator=Generator().manual_seed(0))
        else:
            codes = torch.from_numpy(np.load(config.codes)).float()
        if codes.shape != (config.num_tokens, 48):
            raise ValueError(f"codes must be ({config.num_tokens}, 48), got {tuple(codes.shape)}")
        self.register_buffer("codes", F.normalize(codes, dim=1))

    def forward(self, images: Tensor) -> Tensor:
        nearest = nearest_codes(self.vectors(images), self.codes)
        return nearest.unflatten(1, (self.resolution, self.resolution))

    def vectors(self, images: Tensor) -> Tensor:
        """What codes are fitted to: (B, 3, H, W) -> (B, S^2, 48), of unit length."""
        pixels = F.adaptive_avg_pool2d(images.detach().float(), 4 * self.resolution)
        return F.normalize(patchify(pixels, 4), dim=2)


def _even_palette() -> Tensor:
    """The middles of 8 x 8 x 8 equal cubes of [-1, 1]^3: (512, 3)."""
    levels = (torch.arange(8) + 0.5) / 4 - 1
    return torch.cartesian_prod(levels, levels, levels)
