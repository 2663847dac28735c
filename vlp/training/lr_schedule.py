"""How the learning rate goes over the training: a pure function of the step, so resuming is exact."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from vlp.core.config import Above, AtLeast, StrictConfig, Within
from vlp.core.registry import Registry

LR_SCHEDULES = Registry()


@dataclass(frozen=True, kw_only=True)
class LRSchedule(ABC, StrictConfig):
    """A linear warmup, and what follows it."""

    name: str
    """Which schedule it is."""
    warmup_steps: Annotated[int, AtLeast(0)] = 2000
    """Optimizer steps of linear warmup."""
    warmup_start: Annotated[float, AtLeast(0)] | None = None
    """Learning rate of the first step; None for the peak divided by `warmup_steps`, as in CLIP."""

    def __call__(self, step: float, *, peak: float, total_steps: int) -> float:
        """The learning rate of a step, 0 <= step < total_steps."""
        if step >= self.warmup_steps:
            return self.after_warmup(step, peak=peak, total_steps=total_steps)
        if self.warmup_start is None:
            return peak * (step + 1) / self.warmup_steps
        return self.warmup_start + (peak - self.warmup_start) * step / self.warmup_steps

    def check(self, total_steps: int) -> None:
        """Raise a ValueError that names the setting unless the rate goes all its way in so many steps."""
        if self.warmup_steps >= total_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, and there are {total_steps} steps: the warmup would "
                "be all; lower warmup_steps, or train longer"
            )

    @abstractmethod
    def after_warmup(self, step: float, *, peak: float, total_steps: int) -> float:
        """The learning rate of a step, warmup_steps <= step < total_steps."""


@LR_SCHEDULES.register
@dataclass(frozen=True, kw_only=True)
class Cosine(LRSchedule):
    """Half a cosine from the peak to `min_lr`."""

    name: Literal["cosine"] = "cosine"
    min_lr: Annotated[float, AtLeast(0)] = 0.0
    """Learning rate of the end."""
    begin: Annotated[int, AtLeast(0)] | None = None
    """Step at which the cosine is at its peak, at most `warmup_steps`; None for the end of the warmup.
    SimMIM's release counts from 0, so that its rate is lower by what the cosine falls during the warmup."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.begin is not None and self.begin > self.warmup_steps:
            raise ValueError(f"begin must be at most warmup_steps ({self.warmup_steps}), got {self.begin}")

    def after_warmup(self, step: float, *, peak: float, total_steps: int) -> float:
        begin = self.warmup_steps if self.begin is None else self.begin
        progress = (step - begin) / (total_steps - begin)
        return self.min_lr + (peak - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


@LR_SCHEDULES.register
@dataclass(frozen=True, kw_only=True)
class MultiStep(LRSchedule):
    """The peak, multiplied by `factor` at each milestone; the long runs of SimMIM (arXiv:2111.09886)."""

    name: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...]
    """Steps from which the rate is lower, in order."""
    factor: Annotated[float, Within(0, 1, "()")] = 0.1
    """What the rate is multiplied by at each milestone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must be steps in order, got {list(self.milestones)}")

    def check(self, total_steps: int) -> None:
        super().check(total_steps)
        if self.milestones and self.milestones[-1] >= total_steps:
            raise ValueError(
                f"milestones are {list(self.milestones)}, and there are {total_steps} steps: the rate would "
                "not fall at the last; lower milestones, or train longer"
            )

    def after_warmup(self, step: float, *, peak: float, total_steps: int) -> float:
        return peak * self.factor ** sum(step >= milestone for milestone in self.milestones)


@LR_SCHEDULES.register
@dataclass(frozen=True, kw_only=True)
class Constant(LRSchedule):
    """The peak until the last `cooldown_steps`, which go down to `min_lr`."""

    name: Literal["constant"] = "constant"
    cooldown_steps: Annotated[int, AtLeast(0)] = 0
    """Last steps, in which the rate goes down."""
    cooldown_power: Annotated[float, Above(0)] = 1.0
    """1 goes down in a straight line, more fast at first."""
    min_lr: Annotated[float, AtLeast(0)] = 0.0
    """Learning rate of the end."""

    def check(self, total_steps: int) -> None:
        super().check(total_steps)
        if self.warmup_steps + self.cooldown_steps > total_steps:
            raise ValueError(
                f"cooldown_steps is {self.cooldown_steps}, and {total_steps} steps leave "
                f"{total_steps - self.warmup_steps} after the warmup; lower cooldown_steps, or train longer"
            )

    def after_warmup(self, step: float, *, peak: float, total_steps: int) -> float:
        left = total_steps - step
        if left > self.cooldown_steps:
            return peak
        return self.min_lr + (peak - self.min_lr) * (left / self.cooldown_steps) ** self.cooldown_power
