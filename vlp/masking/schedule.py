"""Numbers that change as the training goes on, such as a progressive mask ratio."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from vlp.core.config import Above, StrictConfig, Within

EVENLY = tuple(i / 32 for i in range(33))
"""Shares of the training between which what changes with it is nearly straight."""


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
    power: Annotated[float, Above(0)] = 2.0
    """Exponent of the shape `power`; the other shapes do not use it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.begin < self.finish <= 1:
            raise ValueError(
                f"begin and finish must be 0 <= begin < finish <= 1, got {self.begin}, {self.finish}"
            )

    @property
    def bounded(self) -> Mapping[str, float]:
        return {"start": self.start, "end": self.end}

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
    def knots(self) -> frozenset[float]:
        """Shares of the training between which the value is nearly straight."""
        # The last one before `finish` keeps a step from being interpolated.
        return frozenset({*EVENLY, self.begin, math.nextafter(self.finish, 0), self.finish})

    @property
    def lowest(self) -> float:
        """The least value it ever takes."""
        return min(self.start, self.end)

    @property
    def highest(self) -> float:
        """The greatest value it ever takes."""
        return max(self.start, self.end)


Ratio = Annotated[float | Schedule, Within(0, 1, "[)")]
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
