"""Heads that turn an encoder's states into a map of predictions (arXiv:2111.09886, section 3.3).

Only the linear head has been released; the others are described in the paper's ablation by their names.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import nn

from vlp.config import StrictConfig
from vlp.registry import Registry

PREDICTION_HEADS = Registry()


@dataclass(frozen=True, kw_only=True)
class PredictionHeadConfig(ABC, StrictConfig):
    """The settings of a head; `build` makes its module."""

    name: str

    @abstractmethod
    def build(self, width: int, channels: int, *, side: int, scale: int) -> nn.Module:
        """A module from (B, width, side, side) to (B, channels, side * scale, side * scale)."""


@PREDICTION_HEADS.register
@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig(PredictionHeadConfig):
    """One linear layer per state, the paper's choice."""

    name: Literal["linear"] = "linear"

    def build(self, width: int, channels: int, *, side: int, scale: int) -> nn.Module:
        return pixel_shuffle_head(width, channels, scale)


@PREDICTION_HEADS.register
@dataclass(frozen=True, kw_only=True)
class MLPHeadConfig(PredictionHeadConfig):
    """Two linear layers per state, with a GELU between them."""

    name: Literal["mlp"] = "mlp"

    def build(self, width: int, channels: int, *, side: int, scale: int) -> nn.Module:
        hidden = nn.Conv2d(width, width, kernel_size=1)
        return nn.Sequential(hidden, nn.GELU(), *pixel_shuffle_head(width, channels, scale))


def pixel_shuffle_head(width: int, channels: int, scale: int) -> nn.Sequential:
    """Output channel c * scale^2 + i * scale + j of a state is channel c of its place (i, j)."""
    linear = nn.Conv2d(width, channels * scale**2, kernel_size=1)
    return nn.Sequential(linear, nn.PixelShuffle(scale))
