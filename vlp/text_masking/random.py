"""A uniform choice of words, one of CLIPA's ways to shorten captions (arXiv:2305.07017, section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vlp.text_masking.strategy import TEXT_MASKS, WordBudget, Words


@TEXT_MASKS.register
@dataclass(frozen=True, kw_only=True)
class RandomTextMask(WordBudget):
    """Leaves words that are drawn, each equally likely, in their order."""

    name: Literal["random"] = "random"
    formula: ClassVar[str] = "k words at random"
    paper: ClassVar[str] = "2305.07017"

    def scores(self, words: Words) -> Tensor:
        return words.noise
