"""What a mask of captions is: it leaves few tokens of each, which are all that is read of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import Registry

TEXT_MASKS = Registry()
FRAME = 2
"""Tokens of a caption that are not words: its start and its end."""


class Words(NamedTuple):
    """Captions, with what a text mask may look at."""

    tokens: Tensor
    """(B, T) int64, each row framed by start and end, then padded."""
    lengths: Tensor
    """(B,) int64 tokens per caption, padding excluded."""
    noise: Tensor
    """(B, T) numbers in [0, 1)."""
    shares: Tensor | None = None
    """(B, T) float, each token's share of all tokens of the training captions; None where not counted."""

    @property
    def places(self) -> Tensor:
        """Where a token is among the words of its caption, -1 for the start: (1, T)."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None] - 1

    @property
    def counts(self) -> Tensor:
        """How many words each caption has: (B, 1)."""
        return self.lengths[:, None] - FRAME


@dataclass(frozen=True, kw_only=True)
class TextMask(ABC, StrictConfig):
    """Chooses which tokens of each caption are hidden."""

    name: str
    """Which text mask it is."""
    formula: ClassVar[str] = ""
    """Which tokens stay, in plain text."""
    paper: ClassVar[str] = ""
    """Number of the paper on arXiv."""
    needs_token_counts: ClassVar[bool] = False
    """Whether it looks at `Words.shares`, which `vlp docfreq` counts."""

    @abstractmethod
    def tokens_left(self, context_length: int) -> int:
        """Tokens that are left of the longest caption, its start and its end included."""

    def hides_any(self, context_length: int) -> bool:
        """Whether it can hide any token of a caption of at most so many."""
        return self.tokens_left(context_length) < context_length

    def check(self, context_length: int) -> None:
        """Raise a ValueError that names the setting if it cannot be used with such a context."""

    @abstractmethod
    def __call__(self, words: Words) -> tuple[Tensor, Tensor]:
        """What is left: (B, T'), (B,), tokens in their order and lengths, as a text encoder reads them."""


@dataclass(frozen=True, kw_only=True)
class WordBudget(TextMask):
    """Leaves the same number of tokens of every caption that has as many."""

    num_tokens: Annotated[int, AtLeast(FRAME + 1)] = 8
    """Tokens that are left of a caption, its start and its end included; a shorter one stays as it is."""

    def tokens_left(self, context_length: int) -> int:
        return min(self.num_tokens, context_length)

    def check(self, context_length: int) -> None:
        if self.num_tokens >= context_length:
            raise ValueError(
                f"num_tokens is {self.num_tokens} and tokenizer.context_length {context_length}: nothing is "
                "hidden; set num_tokens lower, or text_mask.name=none"
            )

    @abstractmethod
    def scores(self, words: Words) -> Tensor:
        """How much each token is to stay: (B, T); the highest of each caption do, of equals the first."""

    def __call__(self, words: Words) -> tuple[Tensor, Tensor]:
        is_word = (words.places >= 0) & (words.places < words.counts)
        is_frame = (words.places == -1) | (words.places == words.counts)
        scores = self.scores(words).masked_fill(~is_word, -torch.inf).masked_fill(is_frame, torch.inf)
        chosen = scores.argsort(dim=1, descending=True, stable=True)[:, : self.num_tokens]
        kept = chosen.sort(dim=1).values  # padding, which is chosen last, is also last in place
        return words.tokens.gather(1, kept), words.lengths.clamp(max=self.num_tokens)
