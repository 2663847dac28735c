"""Numbers that change as the training goes on, such as a progressive mask ratio."""

import math
from dataclasses import dataclass
from typing import Literal

from vlp.core.config import StrictConfig


@dataclass(frozen=True, kw_only=True)
class Schedule(StrictConfig):
    """Moves from `start` to `end`; a pure function of progress, so a resumed run goes on exactly."""

    start: float
    """Value until `begin`."""
    end: float
    """Value from `finish` on."""
    begin: float = 0.0
    """Share of the training after which the value starts to move, in [0, 1)."""
    finish: float = 1.0
    """Share of the training after which it stays, above `begin` and at most 1."""
    shape: Literal["linear", "cosine", "power", "step"] = "linear"
    """How it moves in between; `step` jumps at `finish`."""
    power: float = 2.0
    """Exponent of the shape `power`, above 0; the other shapes do not use it."""

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise ValueError(
                f"begin and finish must be 0 <= begin < finish <= 1, got {self.begin}, {self.finish}"
            )
        if not self.power > 0:
            raise ValueError(f"power must be above 0, got {self.power}")

    def __call__(self, progress: float) -> float:
        """The value after a share of the training."""
        u = min(1.0, max(0.0, (progress - self.begin) / (self.finish - self.begin)))
        match self.shape:
            case "cosine":
                u = (1 - math.cos(math.pi * u)) / 2
            case "power":
                u = u**self.power
            case "step":
                u = math.floor(u)
        return self.start * (1 - u) + self.end * u

    @property
    def lowest(self) -> float:
        """The least value it ever takes."""
        return min(self.start, self.end)

    @property
    def highest(self) -> float:
        """The greatest value it ever takes."""
        return max(self.start, self.end)


Ratio = float | Schedule
"""A share that stays, or one that changes with the training."""


def ratio_at(ratio: Ratio, progress: float) -> float:
    """The ratio after a share of the training."""
    return ratio(progress) if isinstance(ratio, Schedule) else ratio


def lowest_ratio(ratio: Ratio) -> float:
    """The least ratio of the whole training, which fixes the encoder's sequence length."""
    return ratio.lowest if isinstance(ratio, Schedule) else ratio


def highest_ratio(ratio: Ratio) -> float:
    """The greatest ratio of the whole training."""
    return ratio.highest if isinstance(ratio, Schedule) else ratio


def is_constant(ratio: Ratio) -> bool:
    """Whether the ratio stays."""
    return not isinstance(ratio, Schedule)


def check_ratio(key: str, ratio: Ratio) -> None:
    """Raise a ValueError that names the key unless the ratio stays in [0, 1)."""
    values = (
        {key: ratio}
        if not isinstance(ratio, Schedule)
        else {
            f"{key}.start": ratio.start,
            f"{key}.end": ratio.end,
        }
    )
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
