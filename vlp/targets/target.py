"""What SimMIM (arXiv:2111.09886, section 3.4) rebuilds, and how far off a prediction is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import AtLeast, StrictConfig
from vlp.core.normalization import Normalization
from vlp.core.registry import Registry

REBUILD_TARGETS = Registry()


class RebuildTarget(nn.Module, ABC):
    """A square map that is predicted from the encoder's states."""

    channels: int
    """C, predicted numbers per place of the map."""
    resolution: int
    """S, side of the map."""

    @abstractmethod
    def errors(self, predictions: Tensor, images: Tensor) -> Tensor:
        """How far off each place is, in float32: (B, C, S, S), (B, 3, H, W) -> (B, S, S)."""

    @abstractmethod
    def pixels(self, predictions: Tensor) -> Tensor | None:
        """Predictions as a picture, normalized as the images are: (B, C, S, S) -> (B, 3, S, S).

        None for a target that no picture shows.
        """


@dataclass(frozen=True, kw_only=True)
class RebuildTargetConfig(ABC, StrictConfig):
    """The settings of a target; `build` makes it."""

    name: str
    """Which target it is."""
    resolution: Annotated[int, AtLeast(1)] | None = None
    """Side of the map that is rebuilt; None for the image's own, smaller ones are averages of its pixels."""

    def side(self, image_size: int) -> int:
        """S; raises a ValueError if no whole number of pixels makes a place of the map."""
        side = self.resolution or image_size
        if image_size % side:
            raise ValueError(f"resolution {side} does not divide image_size {image_size}")
        return side

    def check_normalization(self, normalization: Normalization) -> None:
        """Raise a ValueError unless the target can be made of images normalized so."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Files whose content the target is made of, by the setting that names each."""
        return {}

    def check_files(self) -> None:
        """Raise a ValueError that names the setting if one of `files` is missing or holds something else."""

    @abstractmethod
    def build(self, image_size: int) -> RebuildTarget:
        """The target of images of this side; its codes are read or drawn here."""


def shrink(images: Tensor, resolution: int) -> Tensor:
    """Average the pixels of each place of the target, without gradient: (B, C, H, H) -> (B, C, S, S)."""
    images = images.detach().float()
    return images if images.shape[-1] == resolution else F.adaptive_avg_pool2d(images, resolution)
