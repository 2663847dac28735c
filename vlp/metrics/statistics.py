"""Numbers about items, of which each is taken as many times as it was drawn: what the bootstrap asks for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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


def _are_shares(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
