"""Rows of ids of unequal length, kept flat so that numpy moves them."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np


class TokenRows(NamedTuple):
    """The ids of B captions, one after another."""

    ids: np.ndarray
    """(sum of lengths,) int64."""
    lengths: np.ndarray
    """(B,) int64."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenRows":
        """From one sequence of ids per caption."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum()), lengths)

    def take(self, indices: np.ndarray) -> "TokenRows":
        """The rows at some indices, each as often as it is named."""
        lengths = self.lengths[indices]
        starts = (self.lengths.cumsum() - self.lengths)[indices]
        return TokenRows(self.ids[starts.repeat(lengths) + positions(lengths)], lengths)

    def join(self, counts: np.ndarray) -> "TokenRows":
        """The first counts[0] rows as one, then the next counts[1], and so on."""
        ends = np.concatenate([[0], self.lengths.cumsum()])
        last = counts.cumsum()
        return TokenRows(self.ids, ends[last] - ends[last - counts])

    def cut(self, longest: int) -> "TokenRows":
        """The first ids of each row, at most `longest`."""
        if self.lengths.max(initial=0) <= longest:
            return self
        return TokenRows(self.ids[positions(self.lengths) < longest], self.lengths.clip(max=longest))

    def tolist(self) -> list[list[int]]:
        """One list of ids per caption."""
        ids, ends = self.ids.tolist(), self.lengths.cumsum().tolist()
        return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def positions(lengths: np.ndarray) -> np.ndarray:
    """Where each id stands in its row: lengths 2, 3 give 0 1 0 1 2."""
    ends = lengths.cumsum()
    return np.arange(lengths.sum()) - (ends - lengths).repeat(lengths)
