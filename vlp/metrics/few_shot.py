"""Few-shot classification of frozen features by least squares, as in CapPa (arXiv:2306.07915)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.metrics.outcomes import Answers

BIAS = 100.0
"""The constant feature: so large that its weight, the bias, is hardly regularized."""
SEEDS = (0, 1, 2)


class LeastSquares(NamedTuple):
    """A linear classifier of standardized features and a constant one."""

    mean: Tensor
    """(D,)"""
    std: Tensor
    """(D,)"""
    weights: Tensor
    """(D + 1, K), the last row for the constant feature."""

    def __call__(self, features: Tensor) -> Tensor:
        """Scores of the classes: (B, D) -> (B, K)."""
        return _standardize(features, self.mean, self.std) @ self.weights


def fit_least_squares(
    features: Tensor, labels: Tensor, *, num_classes: int, l2: float = 1024.0
) -> LeastSquares:
    """Ridge regression to 1 for an image's class and -1 for all others, in closed form and float64.

    Args:
        features: (B, D), of any scale: they are standardized here.
        labels: (B,) int64 in 0..K-1.
        num_classes: K.
        l2: weight of the squared weights in the sum of squared errors.
    """
    features = features.double()
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0) + 1e-5
    targets = 2.0 * F.one_hot(labels, num_classes).double() - 1
    return LeastSquares(mean, std, ridge(_standardize(features, mean, std), targets, l2=l2))


def _standardize(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """With the constant feature at the end: (B, D), (D,), (D,) -> (B, D + 1) float64."""
    return F.pad((features.double() - mean) / std, (0, 1), value=BIAS)


def ridge(x: Tensor, y: Tensor, *, l2: float) -> Tensor:
    """`argmin |x w - y|^2 + l2 |w|^2`, by the smaller of its two linear systems: (B, D), (B, K) -> (D, K)."""
    B, D = x.shape
    if B >= D:
        return torch.linalg.solve(x.T @ x + l2 * torch.eye(D, dtype=x.dtype, device=x.device), x.T @ y)
    return x.T @ torch.linalg.solve(x @ x.T + l2 * torch.eye(B, dtype=x.dtype, device=x.device), y)


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
        chosen = draw_shots(train_labels, shots, seed=seed)
        model = fit_least_squares(train_features[chosen], train_labels[chosen], num_classes=num_classes)
        scores = model(test_features)
        right.append((scores.argmax(dim=1) == test_labels) & scores.isfinite().all(dim=1))
    return Answers(torch.stack(right))
