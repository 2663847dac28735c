"""Asynchronous successive halving (Li et al., MLSys 2020, arXiv:1810.05934)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Curve, StoppingScheduler
from vlp.core.config import Above


@SCHEDULERS.register
@dataclass(frozen=True, kw_only=True)
class ASHA(StoppingScheduler):
    """Stops a trial that is not among the best of those that came as far.

    The rungs are after `grace_steps` times the powers of `reduction_factor`; the first trial at a rung goes
    on, as in Ray Tune's variant, which stops trials in place of pausing them.
    """

    name: Literal["asha"] = "asha"
    reduction_factor: Annotated[float, Above(1)] = 2.0
    """One of this many trials goes on at each rung."""

    def stops(self, own: Curve, others: Iterable[Curve]) -> bool:
        before, now = sorted(own)[-2:] if len(own) > 1 else [0.0, *own]
        rung = self._rung(now)
        if rung is None or rung <= before:
            return False
        there = [score for other in others if (score := _score_at(other, rung)) is not None]
        if not there:
            return False
        cutoff = np.percentile(np.nan_to_num(there, nan=-1e30), 100 * (1 - 1 / self.reduction_factor))
        return not own[now] >= cutoff  # so that one that is not finite is stopped

    def _rung(self, step: float) -> float | None:
        """The highest rung that a step has reached."""
        rung = None
        milestone = float(self.grace_steps)
        while milestone <= step:
            rung, milestone = milestone, milestone * self.reduction_factor
        return rung


def _score_at(curve: Curve, rung: float) -> float | None:
    """The first score at a rung or behind it; None where a trial did not come as far."""
    return next((curve[step] for step in sorted(curve) if step >= rung), None)
