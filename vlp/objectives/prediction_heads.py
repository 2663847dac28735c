"""Heads that turn an encoder's states into a map of predictions (arXiv:2111.09886, section 3.3).

Only the linear head has been released; the others are described in the paper's ablation by their names.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import StrictConfig
from vlp.core.registry import Registry

PREDICTION_HEADS = Registry()


@dataclass(frozen=True, kw_only=True)
class PredictionHeadConfig(ABC, StrictConfig):
    """The settings of a head; `build` makes its module."""

    name: str
    """Which head it is."""

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


@dataclass(frozen=True, kw_only=True)
class InverseSwinHeadConfig(PredictionHeadConfig):
    """A Swin that runs backwards: three times, the sides double and the width is halved."""

    window_size: int = 6
    """Side of a window of attention, in states."""

    depths: ClassVar[tuple[int, ...]]

    def build(self, width: int, channels: int, *, side: int, scale: int) -> nn.Module:
        if scale % 8 or width % 8:
            raise ValueError(
                f"objective.head {self.name} needs a target of 8 or more places per state and side, and a "
                f"width that is a multiple of 8; got {scale} and {width}"
            )
        stages = [nn.Sequential(*self._blocks(width, side, self.depths[0]))]
        for depth in self.depths[1:]:
            width, side = width // 2, 2 * side
            stages.append(nn.Sequential(Expand(2 * width), *self._blocks(width, side, depth)))
        output = pixel_shuffle_head(width, channels, scale // 8)
        return nn.Sequential(ChannelsLast(), *stages, nn.LayerNorm(width), ChannelsFirst(), output)

    def _blocks(self, width: int, side: int, depth: int) -> list[nn.Module]:
        from timm.models.swin_transformer import SwinTransformerBlock

        heads = max(1, width // 32)
        shift = self.window_size // 2
        return [
            SwinTransformerBlock(
                width, (side, side), heads, window_size=self.window_size, shift_size=shift * (i % 2)
            )
            for i in range(depth)
        ]


@PREDICTION_HEADS.register
@dataclass(frozen=True, kw_only=True)
class InverseSwinTHeadConfig(InverseSwinHeadConfig):
    """As deep as Swin-T."""

    name: Literal["inverse_swin_t"] = "inverse_swin_t"
    depths: ClassVar[tuple[int, ...]] = (2, 6, 2, 2)


@PREDICTION_HEADS.register
@dataclass(frozen=True, kw_only=True)
class InverseSwinBHeadConfig(InverseSwinHeadConfig):
    """As deep as Swin-B."""

    name: Literal["inverse_swin_b"] = "inverse_swin_b"
    depths: ClassVar[tuple[int, ...]] = (2, 18, 2, 2)


class Expand(nn.Module):
    """Twice the sides, half the width: (B, side, side, D) -> (B, 2 side, 2 side, D / 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.linear(x).permute(0, 3, 1, 2), 2)
        return self.norm(x.permute(0, 2, 3, 1))


class ChannelsLast(nn.Module):
    """(B, D, side, side) -> (B, side, side, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(B, side, side, D) -> (B, D, side, side)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)
