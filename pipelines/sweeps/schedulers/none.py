"""Every trial to its end."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Curve, Scheduler


@SCHEDULERS.register
@dataclass(frozen=True, kw_only=True)
class NoScheduler(Scheduler):
    """Stops nothing."""

    name: Literal["none"] = "none"
    may_stop: ClassVar = False

    def stops(self, own: Curve, others: Iterable[Curve]) -> bool:
        return False
