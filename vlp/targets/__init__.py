"""What SimMIM rebuilds, one target per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.targets.target import REBUILD_TARGETS, RebuildTarget, RebuildTargetConfig

__all__ = ["REBUILD_TARGETS", "RebuildTarget", "RebuildTargetConfig"]

import_modules(__name__, __path__)
