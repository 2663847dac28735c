"""Whole captions, as CLIP reads them (arXiv:2103.00020)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vlp.text_masking.strategy import TEXT_MASKS, TextMask, Words


@TEXT_MASKS.register
@dataclass(frozen=True, kw_only=True)
class NoTextMask(TextMask):
    """Hides nothing."""

    name: Literal["none"] = "none"
    paper: ClassVar[str] = "2103.00020"

    def tokens_left(self, context_length: int) -> int:
        return context_length

    def __call__(self, words: Words) -> tuple[Tensor, Tensor]:
        return words.tokens, words.lengths
