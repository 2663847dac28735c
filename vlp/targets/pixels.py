"""The pixels themselves (SimMIM, arXiv:2111.09886, section 3.4)."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from vlp.targets.target import REBUILD_TARGETS, RebuildTarget, RebuildTargetConfig, shrink


@REBUILD_TARGETS.register
@dataclass(frozen=True, kw_only=True)
class PixelTargetConfig(RebuildTargetConfig):
    """The normalized pixels themselves; the paper's choice."""

    name: Literal["pixels"] = "pixels"
    loss: Literal["l1", "l2", "smooth_l1"] = "l1"
    """Distance of each predicted number from its pixel's."""

    def build(self, image_size: int) -> "PixelTarget":
        return PixelTarget(self, image_size)


class PixelTarget(RebuildTarget):
    """Regression of the normalized pixels, at the image's resolution or a lower one."""

    channels = 3

    def __init__(self, config: PixelTargetConfig, image_size: int) -> None:
        super().__init__()
        self.resolution = config.side(image_size)
        self.loss = PIXEL_LOSSES[config.loss]

    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        pixels = shrink(images, self.resolution)
        return self.loss(predictions.float(), pixels, reduction="none").mean(dim=1)

    def pixels(self, predictions: Tensor) -> Tensor:
        return predictions.float()


PIXEL_LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
