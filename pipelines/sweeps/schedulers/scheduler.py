"""What a scheduler is: a function from all results so far to a decision, without a state of its own."""

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

from pipelines.sweeps.samplers import Place, Space
from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import Registry

SCHEDULERS = Registry()
Curve = Mapping[float, float]
"""Step -> score, the higher the better. Where trials of one cost have unlike numbers of steps, a step is the
one of the sweep's run at the same share of the cost."""


class Member(NamedTuple):
    """A trial of a population."""

    point: Mapping[str, Place]
    score: float
    """The higher the better."""


class Copy(NamedTuple):
    """How a trial goes on with another one's weights."""

    donor: int
    """Number of the other one."""
    point: Mapping[str, Place]
    """Its settings from now on."""


@dataclass(frozen=True, kw_only=True)
class Scheduler(ABC, StrictConfig):
    """Decides after every measurement whether a trial goes on."""

    name: str
    """Which way of deciding it is."""
    may_stop: ClassVar[bool] = True
    """Whether it ever stops a trial."""
    has_population: ClassVar[bool] = False
    """Whether trials wait for each other, to go on with each other's weights."""

    def check(self, *, steps: int, every_steps: int) -> None:
        """Raise a ValueError that names the key unless it can decide in trials that are measured so often."""

    def pauses(self, steps: int) -> range:
        """After which of so many steps all trials wait for each other."""
        return range(0)

    def copies(self, members: Sequence[Member], *, space: Space, seed: int) -> Mapping[int, Copy]:
        """Which trials go on with another one's weights after a pause, by number.

        Args:
            seed: of this pause alone.
        """
        return {}

    def stops(self, own: Curve, others: Iterable[Curve]) -> bool:
        """Whether a trial ends after its last measurement.

        Args:
            own: its scores, of which the last has just been measured.
            others: those of all other trials so far, the ended ones included.
        """
        return False


@dataclass(frozen=True, kw_only=True)
class StoppingScheduler(Scheduler):
    """Stops no trial before it had some steps."""

    grace_steps: Annotated[int, AtLeast(1)]
    """No trial is stopped before; a multiple of `evaluation.every_steps` of the run."""

    def check(self, *, steps: int, every_steps: int) -> None:
        if self.grace_steps >= steps:
            raise ValueError(
                f"scheduler.grace_steps is {self.grace_steps} and a trial has {steps} steps: none would ever "
                f"be stopped; set it below {steps}, or scheduler.name to none"
            )
        if self.grace_steps % every_steps:
            lower = self.grace_steps - self.grace_steps % every_steps
            multiples = [n for n in (lower, lower + every_steps) if 0 < n < steps] or [every_steps]
            raise ValueError(
                f"scheduler.grace_steps is {self.grace_steps}, and trials are measured after every "
                f"{every_steps} steps (evaluation.every_steps); set it to {' or '.join(map(str, multiples))}"
            )
