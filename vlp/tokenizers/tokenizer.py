"""What a tokenizer is: captions to ids, for text towers and for class labels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from vlp.config import StrictConfig
from vlp.registry import Registry
from vlp.tokenizers.stop_words import drop_stop_words

TOKENIZERS = Registry()


class Tokenizer(ABC):
    """Turns captions into ids; id 0 pads but may stand for text too, so lengths tell where padding starts."""

    vocab_size: int
    """Number of ids, special tokens included."""

    frame: tuple[int, int]
    """Ids of start-of-text and end-of-text."""

    special_tokens: tuple[int, ...]
    """Ids that are no words of the caption: the frame, the unknown, ..."""

    def __init__(self, config: "TokenizerConfig", *content: object) -> None:
        """Remember the settings, and what decides the ids: vocabulary and version of the cleaning."""
        self.config = config
        self.context_length = config.context_length
        parts = repr((content, config.stop_words, config.context_length))
        self.identity = hashlib.sha256(parts.encode()).hexdigest()[:12]
        """Equal where every caption gets equal tokens, cut alike."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,)  # the vocabulary is read again: it is larger than its file

    @abstractmethod
    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption's own tokens, stop words included."""

    @abstractmethod
    def _name(self, token_id: int) -> str:
        """Readable form of an id in 0..vocab_size - 1."""

    @final
    def token_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption's own tokens: no special tokens added, never truncated."""
        if self.config.stop_words == "drop":
            captions = [drop_stop_words(caption) for caption in captions]
        return self._ids(captions)

    @final
    def training_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption's own tokens, as many as the context has room for: all that training sees."""
        return [ids[: self.context_length - 2] for ids in self.token_ids(captions)]

    @final
    def token_of(self, token_id: int) -> str:
        """Readable form of one id; raises `ValueError` unless 0 <= token_id < vocab_size.

        An ellipsis stands where a piece is joined to its word.
        """
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id must be in 0..{self.vocab_size - 1}, got {token_id}")
        return self._name(token_id)

    @final
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Frame captions by start- and end-of-text, as a text tower reads them.

        Returns:
            tokens: (B, T) int64, zero-padded; T is the longest caption of the batch, at most the context
                length. A longer caption loses its tail, so each row still ends with end-of-text.
            lengths: (B,) int64, the tokens of each caption that are no padding.
        """
        start, end = self.frame
        rows = [[start, *ids, end] for ids in self.training_ids(captions)]
        lengths = [len(row) for row in rows]
        longest = max(lengths, default=0)
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.int64)
        return tokens.view(len(rows), longest), torch.tensor(lengths, dtype=torch.int64)


def read_vocabulary(file: Path) -> bytes:
    """The content of a tokenizer's file; a ValueError if it is missing."""
    if not file.is_file():
        raise ValueError(f"no such file: {file}")
    return file.read_bytes()


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ABC, StrictConfig):
    """Settings of a tokenizer."""

    name: str

    context_length: int = 77
    """Tokens of the longest caption, start- and end-of-text included; at least 3."""
    stop_words: Literal["keep", "drop"] = "keep"
    """Whether English stop words, such as `the` and `with`, are removed before a caption is tokenized."""

    def __post_init__(self) -> None:
        if self.context_length < 3:
            raise ValueError(f"context_length must be at least 3, got {self.context_length}")

    @abstractmethod
    def build(self) -> Tokenizer:
        """The tokenizer of these settings."""
