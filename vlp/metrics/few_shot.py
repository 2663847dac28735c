"""Few-shot classification of frozen features by least squares, as in CapPa (arXiv:2306.07915)."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.metrics.outcomes import Answers
from vlp.metrics.rows import LabelledRows, Standardization

BIAS = 100.0
"""The constant feature: so large that its weight, the bias, is hardly regularized."""
SEEDS = (0, 1, 2)


class LeastSquares(NamedTuple):
    """A linear classifier of standardized features and a constant one."""

    standardize: Standardization
    weights: Tensor
    """(D + 1, K), the last row for the constant feature."""

    def __call__(self, features: Tensor) -> Tensor:
        """Scores of the classes: (B, D) -> (B, K)."""
        return _with_constant(self.standardize(features)) @ self.weights


def fit_least_squares(data: LabelledRows, *, num_classes: int, l2: float = 1024.0) -> LeastSquares:
    """Ridge regression to 1 for an image's class and -1 for all others, in closed form and float64.

    Args:
        data: features (B, D) of any scale, which are standardized here, with labels in 0..K-1.
        num_classes: K.
        l2: weight of the squared weights in the sum of squared errors.
    """
    standardize = data.standardization()
    pairs = (
        (_with_constant(standardize(x)), 2.0 * F.one_hot(labels, num_classes).double() - 1)
        for x, labels in data
    )
    return LeastSquares(standardize, ridge(pairs, l2=l2))


def _with_constant(features: Tensor) -> Tensor:
    """With the constant feature at the end: (B, D) -> (B, D + 1)."""
    return F.pad(features, (0, 1), value=BIAS)


def ridge(pairs: Iterable[tuple[Tensor, Tensor]], *, l2: float) -> Tensor:
    """`argmin |x w - y|^2 + l2 |w|^2` by its normal equations: (D, K).

    Args:
        pairs: x (b, D) and y (b, K) of some rows at a time.
    """
    gram, moments = torch.zeros(()), torch.zeros(())
    for x, y in pairs:
        gram, moments = gram + x.T @ x, moments + x.T @ y
    return torch.linalg.solve(gram + l2 * torch.eye(len(gram), dtype=gram.dtype), moments)


def draw_shots(labels: Tensor, shots: int, *, seed: int) -> Tensor:
    """Positions of a random choice of images, as many of each class: (B,) -> (at most shots x K,) int64.

    A class with fewer images gives all that it has.
    """
    order = torch.randperm(len(labels), generator=Generator().manual_seed(seed)).to(labels.device)
    by_class = order[labels[order].argsort(stable=True)]
    classes = labels[by_class]
    place = torch.arange(len(labels), device=labels.device) - torch.searchsorted(classes, classes)
    return by_class[place < shots]


def few_shot_outcomes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    shots: int = 10,
    num_classes: int,
) -> Answers:
    """Whether each test image gets its class, in three trials with other choices of the labelled images.

    None gets its class by features that are not finite: of itself, or of a labelled image.

    Args:
        train_features: (train, D), of which the labelled images are drawn.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        shots: labelled images per class.
        num_classes: K.
    """
    right = []
    for seed in SEEDS:
        drawn = LabelledRows(train_features, train_labels, draw_shots(train_labels, shots, seed=seed))
        model = fit_least_squares(drawn, num_classes=num_classes)
        right.append(LabelledRows(test_features, test_labels).map(partial(_is_right, model)))
    return Answers(torch.stack(right))


def _is_right(model: LeastSquares, features: Tensor, labels: Tensor) -> Tensor:
    scores = model(features)
    return (scores.argmax(dim=1) == labels) & scores.isfinite().all(dim=1)
