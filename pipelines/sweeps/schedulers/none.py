"""Every trial to its end."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Scheduler


@SCHEDULERS.register
@dataclass(frozen=True, kw_only=True)
class NoScheduler(Scheduler):
    """Stops nothing."""

    name: Literal["none"] = "none"
    may_stop: ClassVar = False
