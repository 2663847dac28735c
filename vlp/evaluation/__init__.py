"""Protocols by which models are measured, one per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation

__all__ = ["EVALUATIONS", "Evaluation"]

import_modules(__name__, __path__)
