"""A window of each caption, one of CLIPA's ways to shorten it (arXiv:2305.07017, section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vlp.text_masking.strategy import FRAME, TEXT_MASKS, WordBudget, Words


@TEXT_MASKS.register
@dataclass(frozen=True, kw_only=True)
class BlockTextMask(WordBudget):
    """Leaves words that follow one another; where they begin is drawn, each place equally likely."""

    name: Literal["block"] = "block"
    formula: ClassVar[str] = "k words in a row, from a random one on"
    paper: ClassVar[str] = "2305.07017"

    def scores(self, words: Words) -> Tensor:
        num_starts = (words.counts - (self.num_tokens - FRAME)).clamp(min=0) + 1
        start = (words.noise[:, :1] * num_starts).long()
        return (words.places >= start).float() - words.places / (words.places.shape[1] + 1)
