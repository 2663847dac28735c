"""Masking strategies, one per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.masking.strategy import STRATEGIES, Calibration, MaskInputs, MaskStrategy, Slots, visible_slots

__all__ = ["STRATEGIES", "Calibration", "MaskInputs", "MaskStrategy", "Slots", "visible_slots"]

import_modules(__name__, __path__)
