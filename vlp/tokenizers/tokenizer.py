"""What a tokenizer is: captions to ids, for text towers and for class labels."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import Registry
from vlp.tokenizers.stop_words import drop_stop_words
from vlp.tokenizers.token_rows import TokenRows, positions

TOKENIZERS = Registry()
JOINT = re.compile("… | …")
SURROGATE = re.compile("[\ud800-\udfff]")


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
    def _rows(self, captions: Sequence[str]) -> TokenRows:
        """Ids of each caption's own tokens, stop words included."""

    @abstractmethod
    def _name(self, token_id: int) -> str:
        """Readable form of an id in 0..vocab_size - 1."""

    @final
    def token_rows(self, captions: str | Sequence[str]) -> TokenRows:
        """Ids of the own tokens of each caption, or of one: no special tokens added, never truncated."""
        if isinstance(captions, str):  # a sequence of its letters, too
            captions = [captions]
        if self.config.stop_words == "drop":
            captions = [drop_stop_words(caption) for caption in captions]
        return self._rows(captions)

    @final
    def token_ids(self, captions: str | Sequence[str]) -> list[list[int]]:
        """The same as one list per caption."""
        return self.token_rows(captions).tolist()

    @final
    def training_rows(self, captions: str | Sequence[str]) -> TokenRows:
        """Ids of each caption's own tokens, as many as the context has room for: all that training sees."""
        return self.token_rows(captions).cut(self.context_length - 2)

    @final
    def token_of(self, token_id: int) -> str:
        """Readable form of one id; raises `ValueError` unless 0 <= token_id < vocab_size.

        An ellipsis stands where a piece is joined to its word.
        """
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id must be in 0..{self.vocab_size - 1}, got {token_id}")
        return self._name(token_id)

    @final
    def decode(self, token_ids: Sequence[int]) -> str:
        """Readable text: pieces joined to words, until end-of-text, without special tokens."""
        _, end = self.frame
        until = token_ids.index(end) if end in token_ids else len(token_ids)
        pieces = (self.token_of(one) for one in token_ids[:until] if one not in self.special_tokens)
        return JOINT.sub("", " ".join(pieces)).strip("…")

    @final
    def encode(self, captions: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Frame captions by start- and end-of-text, as a text tower reads them.

        Returns:
            The tokens: (B, T) int64, zero-padded; T is the longest caption of the batch, at most the context
            length. A longer caption loses its tail, so each row still ends with end-of-text. And the lengths:
            (B,) int64, the tokens of each caption that are no padding.
        """
        ids, lengths = self.training_rows(captions)
        num_captions, longest = len(lengths), lengths.max(initial=-2) + 2
        row = np.arange(num_captions)
        tokens = np.zeros((num_captions, longest), dtype=np.int64)
        tokens[row.repeat(lengths), 1 + positions(lengths)] = ids
        tokens[:, :1] = self.frame[0]
        tokens[row, lengths + 1] = self.frame[1]
        return torch.from_numpy(tokens), torch.from_numpy(lengths + 2)


def well_formed(caption: str) -> str:
    """The caption with U+FFFD for each lone surrogate, which has no place in UTF-8."""
    return caption if caption.isascii() else SURROGATE.sub("\ufffd", caption)


def read_vocabulary(file: Path) -> bytes:
    """The content of a tokenizer's file; a ValueError if it is missing."""
    if not file.is_file():
        raise ValueError(f"no such file: {file}")
    return file.read_bytes()


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ABC, StrictConfig):
    """Settings of a tokenizer."""

    names_classes: ClassVar[bool] = False
    """Whether a caption is the name of a class, which is one token."""

    name: str
    """Which tokenizer it is."""

    context_length: Annotated[int, AtLeast(3)] = 77
    """Tokens of the longest caption, start- and end-of-text included."""
    stop_words: Literal["keep", "drop"] = "keep"
    """Whether English stop words, such as `the` and `with`, are removed before a caption is tokenized."""

    @abstractmethod
    def build(self) -> Tokenizer:
        """The tokenizer of these settings."""
