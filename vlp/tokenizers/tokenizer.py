"""What a tokenizer is: captions to ids, for text towers and for class labels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from vlp.config import StrictConfig
from vlp.registry import Registry

TOKENIZERS = Registry()


class Tokenizer(ABC):
    """Turns captions into ids; id 0 pads but may stand for text too, so lengths tell where padding starts."""

    vocab_size: int
    """Number of ids, special tokens included."""

    special_tokens: tuple[int, int]
    """Ids of start-of-text and end-of-text, which are no words of the caption."""

    context_length: int
    """Longest row of tokens that `encode` returns, special tokens included."""

    identity: str
    """Short hash of vocabulary and cleaning: equal where every caption gets equal ids."""

    @abstractmethod
    def token_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption's own tokens: no special tokens added, never truncated."""

    @abstractmethod
    def token_of(self, token_id: int) -> str:
        """Readable form of one id; raises `ValueError` unless 0 <= token_id < vocab_size."""

    @final
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Frame captions by start- and end-of-text, as a text tower reads them.

        Returns:
            tokens: (B, T) int64, zero-padded; T is the longest caption of the batch, at most the context
                length. A longer caption loses its tail, so each row still ends with end-of-text.
            lengths: (B,) int64, the tokens of each caption that are no padding.
        """
        start, end = self.special_tokens
        num_own = self.context_length - 2
        rows = [[start, *ids[:num_own], end] for ids in self.token_ids(captions)]
        lengths = [len(row) for row in rows]
        longest = max(lengths, default=0)
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.int64)
        return tokens.view(len(rows), longest), torch.tensor(lengths, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ABC, StrictConfig):
    """Settings of a tokenizer."""

    name: str

    context_length: int = 77
    """Tokens of the longest caption, start- and end-of-text included; at least 3."""

    def __post_init__(self) -> None:
        if self.context_length < 3:
            raise ValueError(f"context_length must be at least 3, got {self.context_length}")

    @abstractmethod
    def build(self) -> Tokenizer:
        """The tokenizer of these settings."""
