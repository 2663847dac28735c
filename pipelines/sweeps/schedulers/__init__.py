"""What stops trials that are worse than others, one way per file; a new file needs no other edit."""

from pipelines.sweeps.schedulers.scheduler import SCHEDULERS, Curve, Member, Scheduler
from vlp.core.registry import import_modules

__all__ = ["SCHEDULERS", "Curve", "Member", "Scheduler"]

import_modules(__name__, __path__)
