"""The beginning of each caption, one of CLIPA's ways to shorten it (arXiv:2305.07017, section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vlp.text_masking.strategy import TEXT_MASKS, WordBudget, Words


@TEXT_MASKS.register
@dataclass(frozen=True, kw_only=True)
class TruncateTextMask(WordBudget):
    """Leaves the first words."""

    name: Literal["truncate"] = "truncate"
    formula: ClassVar[str] = "the first k words"
    paper: ClassVar[str] = "2305.07017"

    def scores(self, words: Words) -> Tensor:
        return -words.places.float().expand_as(words.tokens)
