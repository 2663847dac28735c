"""Training objectives, one per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.objectives.objective import OBJECTIVES, Batch, Objective, ObjectiveConfig, Step, Vocabulary

__all__ = ["OBJECTIVES", "Batch", "Objective", "ObjectiveConfig", "Step", "Vocabulary"]

import_modules(__name__, __path__)
