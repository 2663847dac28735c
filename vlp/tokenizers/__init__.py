"""Tokenizers, one per file; a new file needs no other edit."""

from vlp.core.registry import import_modules
from vlp.tokenizers.tokenizer import TOKENIZERS, Tokenizer, TokenizerConfig

__all__ = ["TOKENIZERS", "Tokenizer", "TokenizerConfig"]

import_modules(__name__, __path__)
