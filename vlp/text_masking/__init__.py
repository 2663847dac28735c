"""Masks of captions, one per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.text_masking.strategy import TEXT_MASKS, TextMask, Words

__all__ = ["TEXT_MASKS", "TextMask", "Words"]

import_modules(__name__, __path__)
