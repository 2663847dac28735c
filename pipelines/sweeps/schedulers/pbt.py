"""Population based training (Jaderberg et al., 2017, arXiv:1711.09846)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar, Literal

from pipelines.sweeps.samplers import Place, Space
from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Copy, Member, Scheduler
from vlp.core.config import AtLeast, Within

FACTORS = (1.2, 0.8)
"""What a number is multiplied by."""


@SCHEDULERS.register
@dataclass(frozen=True, kw_only=True)
class PBT(Scheduler):
    """Has the worst trials go on with the weights, the optimizer and changed settings of the best.

    All trials wait for each other at each pause, as in Ray Tune with `synch`, so that what comes of it
    depends neither on their pace nor on how many have room at once.
    """

    name: Literal["pbt"] = "pbt"
    may_stop: ClassVar = False
    has_population: ClassVar = True
    perturbation_interval: Annotated[int, AtLeast(1)]
    """Steps from one pause to the next."""
    quantile_fraction: Annotated[float, Within(0, 0.5, "(]")] = 0.25
    """Share of the trials that go on with the weights of as many at the other end."""
    resample_probability: Annotated[float, Within(0, 1)] = 0.25
    """How likely a setting is drawn anew; else a number is multiplied by 1.2 or 0.8, within its range, and a
    value of a list becomes the next one or the one before."""

    def check(self, *, steps: int, every_steps: int) -> None:
        if self.perturbation_interval >= steps:
            raise ValueError(
                f"scheduler.perturbation_interval is {self.perturbation_interval} and a trial has {steps} "
                f"steps: none would ever go on with another one's weights; set it below {steps}"
            )

    def pauses(self, steps: int) -> range:
        return range(self.perturbation_interval, steps, self.perturbation_interval)

    def copies(self, members: Sequence[Member], *, space: Space, seed: int) -> Mapping[int, Copy]:
        generator = Random(seed)
        worst, best = self.quantiles([member.score for member in members])
        donors = {number: generator.choice(best) for number in sorted(worst)}
        return {
            number: Copy(donor, self._explored(members[donor].point, space, generator))
            for number, donor in donors.items()
        }

    def quantiles(self, scores: Sequence[float]) -> tuple[list[int], list[int]]:
        """The trials with the lowest and with the highest scores; one that is not finite is the lowest."""
        order = sorted(range(len(scores)), key=lambda n: -math.inf if math.isnan(scores[n]) else scores[n])
        count = min(math.ceil(len(order) * self.quantile_fraction), len(order) // 2)
        return order[:count], order[len(order) - count :]

    def _explored(self, point: Mapping[str, Place], space: Space, generator: Random) -> Mapping[str, Place]:
        """Settings near those of a trial."""
        drawn = space.draw(generator)
        changed = {}
        for key, sampler in space.samplers.items():
            is_drawn, factor = generator.random() < self.resample_probability, generator.choice(FACTORS)
            if is_drawn or key not in point:
                changed[key] = drawn[key]
            else:
                changed[key] = sampler.scaled(point[key], factor)
        return space.active(changed)
