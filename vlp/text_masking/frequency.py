"""CLIPF (WACV 2026): rare words stay more often than frequent ones."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from vlp.core.config import Above
from vlp.text_masking.strategy import TEXT_MASKS, WordBudget, Words


@TEXT_MASKS.register
@dataclass(frozen=True, kw_only=True)
class FrequencyTextMask(WordBudget):
    """Leaves the words of the largest U(0, 1) - p, where p is word2vec's probability to leave a word out.

    Shares are those of tokens, as the docfreq stage counts them.
    """

    name: Literal["frequency"] = "frequency"
    formula: ClassVar[str] = "the k words of the largest U(0, 1) - p, p = max(0, 1 - sqrt(t / f))"
    paper: ClassVar[str] = "2412.16148"
    threshold: Annotated[float, Above(0)] = 1e-6
    """t, the share of all tokens up to which a token counts as rare: 1e-6 for CC12M, 1e-7 for DataComp."""

    needs_token_counts: ClassVar[bool] = True

    def scores(self, words: Words) -> Tensor:
        assert words.shares is not None
        return words.noise - (1 - (self.threshold / words.shares).sqrt()).clamp(min=0)
