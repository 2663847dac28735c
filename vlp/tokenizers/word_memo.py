"""Tokenizing by words: captions repeat few words, so each is split into tokens once and then looked up."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlp.tokenizers.token_rows import TokenRows

MEMO_SIZE = 2**17  # words; all that recur in a large corpus
LONGEST_KEPT = 64  # characters; longer words hardly recur, and could fill the memory


class WordCodes(NamedTuple):
    """B captions as words between spaces, each a code into the distinct ones."""

    words: list[str]
    codes: np.ndarray
    """(sum of counts,)."""
    counts: np.ndarray
    """(B,) words of each caption; two spaces in a row have an empty word between them."""


class WordMemo:
    """Captions to ids, for tokenizers none of whose tokens spans a space.

    Args:
        clean: applied to each caption; brings every kind of white space that separates words to spaces.
        ids_of: ids of one word of a clean caption. The last `MEMO_SIZE` results are kept.
    """

    def __init__(self, clean: Callable[[str], str], ids_of: Callable[[str], Sequence[int]]) -> None:
        self.clean = clean
        self.ids_of = ids_of
        self.recent = lru_cache(MEMO_SIZE)(ids_of)

    def __call__(self, captions: Sequence[str]) -> TokenRows:
        """The ids of each caption."""
        words, codes, counts = split_words([self.clean(caption) for caption in captions])
        vocabulary = [self.recent(w) if len(w) <= LONGEST_KEPT else self.ids_of(w) for w in words]
        return TokenRows.of(vocabulary).take(codes).join(counts)


def split_words(captions: Sequence[str]) -> WordCodes:
    """Split captions at spaces; in Arrow, as it is most of the work."""
    texts = pa.array(captions, pa.large_string())
    words = pc.split_pattern(texts, " ")  # pyright: ignore[reportAttributeAccessIssue]  # made at import
    encoded = words.flatten().dictionary_encode()
    counts = np.diff(words.offsets.to_numpy()).astype(np.int64)
    return WordCodes(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), counts)
