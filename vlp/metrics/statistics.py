"""Numbers about items, of which each is taken as many times as it was drawn: what the bootstrap asks for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


class Statistic(ABC):
    """One number about Q items."""

    @abstractmethod
    def __call__(self, counts: Tensor) -> Tensor:
        """The number for each of R draws.

        Args:
            counts: (R, Q) float64, how many times each item was drawn.

        Returns:
            (R,) float64; NaN for a draw of no item.
        """

    @property
    def is_right(self) -> Tensor | None:
        """(Q,) bool, of a number that is the share of right items; None of others."""
        return None

    @property
    def is_share(self) -> bool:
        """Whether the number is in [0, 1] whatever the items."""
        return False


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of a value per item; of yes and no, the share of yes."""

    values: Tensor
    """(Q,) bool or float."""

    def __call__(self, counts: Tensor) -> Tensor:
        return counts @ self.values.double() / counts.sum(dim=1)

    @property
    def is_right(self) -> Tensor | None:
        is_right = self.values == 1
        return is_right if (is_right | (self.values == 0)).all() else None

    @property
    def is_share(self) -> bool:
        return _are_shares(self.values)


@dataclass(frozen=True)
class Ratio(Statistic):
    """The sum of one value per item in that of another."""

    values: Tensor
    """(Q,)"""
    wholes: Tensor
    """(Q,)"""

    def __call__(self, counts: Tensor) -> Tensor:
        return counts @ self.values.double() / (counts @ self.wholes.double())


@dataclass(frozen=True)
class Median(Statistic):
    """The median of a value per item, the mean of the two in the middle of an even number."""

    values: Tensor
    """(Q,)"""

    def __call__(self, counts: Tensor) -> Tensor:
        values, order = self.values.double().sort()
        until = counts[:, order].cumsum(dim=1)
        last = until[:, -1:]
        middle = torch.cat([((last - 1) / 2).floor(), (last / 2).floor()], dim=1)
        places = torch.searchsorted(until, middle, right=True)
        return values[places.clamp(max=len(values) - 1)].mean(dim=1)


@dataclass(frozen=True)
class ClassMean(Statistic):
    """The mean of the classes' means, over those that have items."""

    values: Tensor
    """(Q,) bool or float."""
    labels: Tensor
    """(Q,) int64, the items' classes."""

    def __call__(self, counts: Tensor) -> Tensor:
        empty = counts.new_zeros(len(counts), int(self.labels.max()) + 1)
        items = empty.index_add(1, self.labels, counts)
        means = empty.index_add(1, self.labels, counts * self.values.double()) / items
        return means.nanmean(dim=1)

    @property
    def is_share(self) -> bool:
        return _are_shares(self.values)


@dataclass(frozen=True)
class TrialSpread(Statistic):
    """The standard deviation over trials of the mean of a value per item."""

    values: Tensor
    """(T, Q) bool or float, for each of T trials."""

    def __call__(self, counts: Tensor) -> Tensor:
        means = counts @ self.values.double().T / counts.sum(dim=1, keepdim=True)
        return means.std(dim=1, correction=0)


@dataclass(frozen=True)
class AveragePrecision(Statistic):
    """The area under the curve of precision over recall, a step for every score: of ties, one for all.

    NaN of items of which none is positive.
    """

    scores: Tensor
    """(Q,) float, higher for what is taken for positive."""
    is_positive: Tensor
    """(Q,) bool"""

    def __call__(self, counts: Tensor) -> Tensor:
        scores, order = self.scores.double().sort(descending=True)
        is_positive = self.is_positive[order].double()
        last = torch.cat([scores.diff() != 0, torch.ones(1, dtype=torch.bool)])  # of its ties
        found = counts[:, order]
        hits = (found * is_positive).cumsum(dim=1)[:, last]
        precision = hits / found.cumsum(dim=1)[:, last].clamp(min=1)
        steps = hits.diff(dim=1, prepend=hits.new_zeros(len(hits), 1))
        return (steps * precision).sum(dim=1) / hits[:, -1]

    @property
    def is_share(self) -> bool:
        return True


@dataclass(frozen=True)
class Bleu(Statistic):
    """BLEU of all captions together (pycocoevalcap's): the mean precision of n-grams of up to n words, and
    less where the captions are shorter than their references."""

    correct: Tensor
    """(n, Q), n-grams that a reference has too, of each length."""
    guessed: Tensor
    """(n, Q), n-grams."""
    lengths: Tensor
    """(2, Q), words of the captions, and of the references that are nearest in length."""

    def __call__(self, counts: Tensor) -> Tensor:
        correct, guessed, lengths = (
            counts @ part.double().T for part in (self.correct, self.guessed, self.lengths)
        )
        precision = ((correct + 1e-15) / (guessed + 1e-9)).prod(dim=1) ** (1 / len(self.correct))
        ratio = (lengths[:, 0] + 1e-15) / (lengths[:, 1] + 1e-9)
        return precision * (1 - 1 / ratio).clamp(max=0).exp()

    @property
    def is_share(self) -> bool:
        return True


@dataclass(frozen=True)
class KendallTau(Statistic):
    """Kendall's rank correlation of two values per item, in [-1, 1]; 0 where one of them is always the same.

    It takes as many passes over the items as there are different second values.
    """

    first: Tensor
    """(Q,)"""
    second: Tensor
    """(Q,), of few different values."""
    variant: Literal["b", "c"]
    """How ties are reckoned with, as in scipy."""

    def __call__(self, counts: Tensor) -> Tensor:
        of_first, of_second = (_by_value(counts, values) for values in (self.first, self.second))
        size = counts.sum(dim=1)
        excess = self._excess(counts, of_first)
        if self.variant == "c":
            values = torch.minimum((of_first > 0).sum(dim=1), (of_second > 0).sum(dim=1))
            scale = size.square() * (values - 1) / values / 2
        else:
            pairs = [_pairs(size) - _pairs(some).sum(dim=1) for some in (of_first, of_second)]
            scale = (pairs[0] * pairs[1]).sqrt()
        return torch.where(scale > 0, excess / scale, 0.0)

    def _excess(self, counts: Tensor, of_first: Tensor) -> Tensor:
        """Pairs of items that both values order alike, less those that they order otherwise: (R,)."""
        _, places = self.first.unique(return_inverse=True)
        below, excess = torch.zeros_like(of_first), counts.new_zeros(len(counts))
        for value in self.second.unique():
            (items,) = (self.second == value).nonzero(as_tuple=True)
            own = torch.zeros_like(of_first).index_add(1, places[items], counts[:, items])
            others = below - (of_first - below - own)  # lower second values, less higher ones
            excess += (own * (others.cumsum(dim=1) - others)).sum(dim=1)
            below += own
        return excess


def _by_value(counts: Tensor, values: Tensor) -> Tensor:
    """Items drawn of each different value, in ascending order: (R, Q), (Q,) -> (R, G)."""
    different, places = values.unique(return_inverse=True)
    return counts.new_zeros(len(counts), len(different)).index_add(1, places, counts)


def _pairs(sizes: Tensor) -> Tensor:
    return sizes * (sizes - 1) / 2


def _are_shares(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
