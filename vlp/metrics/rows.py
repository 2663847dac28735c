"""Labelled rows of a matrix that may be larger than memory: read some at a time, in float64."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_AT_ONCE = 2048  # 12 MB of ViT-B's features


class Standardization(NamedTuple):
    """Brings every column to mean 0 and deviation 1."""

    mean: Tensor
    """(D,) float64"""
    std: Tensor
    """(D,) float64"""

    def __call__(self, features: Tensor) -> Tensor:
        """(B, D) of any type -> (B, D) float64."""
        return (features.double() - self.mean) / self.std


class LabelledRows:
    """Some rows of a matrix with their labels, to be gone through any number of times.

    Args:
        features: (I, D), in memory or on a disk.
        labels: (I,) int64.
        positions: (B,) int64 of the rows; None for all.
    """

    def __init__(self, features: Tensor, labels: Tensor, positions: Tensor | None = None) -> None:
        self._features, self._labels = features, labels
        self._positions = torch.arange(len(labels)) if positions is None else positions.sort().values

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(b, D) float64 features and (b,) labels of some rows at a time, in the order of the matrix."""
        for rows in self._positions.split(ROWS_AT_ONCE):
            is_slice = int(rows[-1] - rows[0]) == len(rows) - 1  # which is read without a copy
            where = slice(int(rows[0]), int(rows[-1]) + 1) if is_slice else rows
            yield self._features[where].double(), self._labels[where]

    def standardization(self) -> Standardization:
        """By the mean and deviation of these rows, in two passes."""
        # Added up in place: small results kept between large ones would leave holes that are not used again.
        mean, variance = self._features.new_zeros(2, self._features.shape[1], dtype=torch.float64)
        for x, _ in self:
            mean += x.sum(dim=0) / len(self)
        for x, _ in self:
            variance += (x - mean).square_().sum(dim=0) / len(self)
        return Standardization(mean, variance.sqrt() + 1e-5)

    def map(self, judge: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What becomes of each row: (B, ...).

        Args:
            judge: of (b, D) features and (b,) labels of some rows, (b, ...).
        """
        found, start = torch.empty(0), 0
        for features, labels in self:
            judged = judge(features, labels)
            if not start:
                found = judged.new_empty(len(self), *judged.shape[1:])
            found[start : start + len(labels)] = judged
            start += len(labels)
        return found
