"""The bin of each channel's value (SimMIM, arXiv:2111.09886, section 3.4)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from vlp.core.config import Within
from vlp.targets.classes import ClassTargetConfig
from vlp.targets.target import REBUILD_TARGETS, RebuildTarget


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class ColorBinTargetConfig(ClassTargetConfig):
    """The bin that each channel's value falls in."""

    name: Literal["color_bins"] = "color_bins"
    num_bins: Annotated[int, Within(2, 256)] = 8
    """Equal parts of [0, 255]."""

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
