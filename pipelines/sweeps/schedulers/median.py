"""The median stopping rule (Golovin et al., KDD 2017, section 3.2.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median
from typing import Annotated, Literal

from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Curve, StoppingScheduler
from vlp.core.config import AtLeast


@SCHEDULERS.register
@dataclass(frozen=True, kw_only=True)
class MedianStopping(StoppingScheduler):
    """Stops a trial whose best score is below the median of what others had in the mean up to its step."""

    name: Literal["median"] = "median"
    min_trials: Annotated[int, AtLeast(1)] = 3
    """Other trials that have to have come as far."""

    def stops(self, own: Curve, others: Iterable[Curve]) -> bool:
        now = max(own)
        as_far = [curve for curve in others if curve and min(curve) <= now <= max(curve)]
        if now < self.grace_steps or len(as_far) < self.min_trials:
            return False
        means = [mean(score for step, score in curve.items() if step <= now) for curve in as_far]
        return not max(own.values()) >= median(means)
