"""Linear probe: logistic regression on frozen features, as in CLIP (arXiv:2103.00020, A.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.few_shot import draw_shots
from vlp.metrics.outcomes import ClassRanks, NoOutcomesError
from vlp.metrics.ranks import class_outcomes

HELD_OUT = 0.2
MAX_ITERATIONS = 1000


class Logistic(NamedTuple):
    """A linear classifier."""

    weights: Tensor
    """(K, D)"""
    bias: Tensor
    """(K,)"""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits: (B, D) -> (B, K)."""
        return features @ self.weights.T + self.bias


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    penalty: float,
    start: Logistic | None = None,
    tolerance: float = 1e-7,
) -> Logistic:
    """The classifier of least `logistic_loss`, by L-BFGS.

    Args:
        features: (B, D).
        labels: (B,) int64 in 0..K-1.
        num_classes: K.
        penalty: weight of half the squared weights; scikit-learn's C is 1 / (B penalty).
        start: a classifier to go on from, such as that of a neighbouring penalty.
        tolerance: the largest slope of the loss that is left; float32 reaches some 1e-5.
    """
    start = start or Logistic(
        features.new_zeros(num_classes, features.shape[1]), features.new_zeros(num_classes)
    )
    model = Logistic(*(part.detach().clone().requires_grad_() for part in start))
    search = torch.optim.LBFGS(
        list(model),
        max_iter=MAX_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        search.zero_grad()
        loss = logistic_loss(model, features, labels, penalty=penalty)
        loss.backward()
        return loss.item()

    with torch.enable_grad():
        search.step(closure)
    return Logistic(*(part.detach() for part in model))


def logistic_loss(model: Logistic, features: Tensor, labels: Tensor, *, penalty: float) -> Tensor:
    """Mean cross-entropy and the penalty of the weights, but not of the bias: ()."""
    return F.cross_entropy(model(features), labels) + penalty / 2 * model.weights.square().sum()


def split_held_out(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions to learn from and to validate on: of each class a fifth, and one at least of two or more.

    Raises:
        NoOutcomesError: no class has two images.
    """
    counts = labels.bincount()
    held_per_class = torch.where(counts > 1, (HELD_OUT * counts).long().clamp(min=1), 0)
    if not held_per_class.any():
        raise NoOutcomesError(
            "linear_probe needs two training images of a class, to hold one out; "
            "leave it out by evaluation.protocols.linear_probe=null"
        )
    order = draw_shots(labels, int(counts.max()), seed=0)  # by class, each in a random order
    classes = labels[order]
    place = torch.arange(len(order)) - torch.searchsorted(classes, classes)
    is_held = place < held_per_class[classes]
    return order[~is_held], order[is_held]


def linear_probe_outcomes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    penalties: Sequence[float],
    num_classes: int,
) -> ClassRanks:
    """The rank of each test image's class by a classifier of the training images.

    Features are standardized by the training images'. The penalty is the strongest of those that do best on
    a held-out part of them, tried from the strongest on, each from the classifier of the one before; then
    the classifier learns from all.

    Args:
        train_features: (train, D), of any scale.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        penalties: to choose from.
        num_classes: K.
    """
    train, test = train_features.double(), test_features.double()
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0) + 1e-5
    train, test = (train - mean) / std, (test - mean) / std
    chosen, start = _validated(train, train_labels, penalties=penalties, num_classes=num_classes)
    model = fit_logistic(train, train_labels, num_classes=num_classes, penalty=chosen, start=start)
    return class_outcomes(model(test), test_labels)


def _validated(
    features: Tensor, labels: Tensor, *, penalties: Sequence[float], num_classes: int
) -> tuple[float, Logistic]:
    """The penalty that does best on held-out images, and the classifier of the others by it."""
    learned, held = split_held_out(labels)
    model, best, chosen = None, -1.0, None
    for penalty in sorted(penalties, reverse=True):
        model = fit_logistic(
            features[learned],
            labels[learned],
            num_classes=num_classes,
            penalty=penalty,
            start=model,
            tolerance=1e-4,  # which penalty does best is told long before the classifiers are exact
        )
        accuracy = class_outcomes(model(features[held]), labels[held]).metrics()["acc1"]
        if accuracy > best:
            best, chosen = accuracy, (penalty, model)
    if chosen is None:
        raise ValueError("a linear probe needs a penalty to choose")
    return chosen
