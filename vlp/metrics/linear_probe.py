"""Linear probe: logistic regression on frozen features, as in CLIP (arXiv:2103.00020, A.3)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.few_shot import draw_shots
from vlp.metrics.outcomes import ClassRanks, NoOutcomesError
from vlp.metrics.ranks import ranked
from vlp.metrics.rows import LabelledRows, Standardization

HELD_OUT = 0.2
MAX_ITERATIONS = 1000


class Logistic(NamedTuple):
    """A linear classifier of standardized features."""

    standardize: Standardization
    weights: Tensor
    """(K, D)"""
    bias: Tensor
    """(K,)"""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits: (B, D) -> (B, K)."""
        # The weights are scaled instead of the features, of which there may be many.
        weights = self.weights / self.standardize.std
        return features.double() @ weights.T + (self.bias - weights @ self.standardize.mean)


def fit_logistic(
    data: LabelledRows,
    *,
    num_classes: int,
    penalty: float,
    start: Logistic | None = None,
    tolerance: float = 1e-7,
) -> Logistic:
    """The classifier of least `logistic_loss`, by L-BFGS, which goes through all rows at each step.

    Args:
        data: features of any scale, with labels in 0..K-1.
        num_classes: K.
        penalty: weight of half the squared weights; scikit-learn's C is 1 / (B penalty).
        start: a classifier of equally standardized features to go on from, such as that of a neighbouring
            penalty; what it standardizes by is kept.
        tolerance: the largest slope of the loss that is left.
    """
    start = start or _blank(data.standardization(), num_classes)
    weights, bias = (part.clone().requires_grad_() for part in start[1:])
    model = Logistic(start.standardize, weights, bias)
    search = torch.optim.LBFGS(
        [weights, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        search.zero_grad()
        return sum(_backward(part) for part in _losses(model, data, penalty=penalty))

    with torch.enable_grad():
        search.step(closure)
    return Logistic(start.standardize, weights.detach(), bias.detach())


def _blank(standardize: Standardization, num_classes: int) -> Logistic:
    weights = standardize.mean.new_zeros(num_classes, len(standardize.mean))
    return Logistic(standardize, weights, weights.new_zeros(num_classes))


def _backward(loss: Tensor) -> float:
    loss.backward()
    return loss.item()


def _losses(model: Logistic, data: LabelledRows, *, penalty: float) -> Iterator[Tensor]:
    """Parts of the loss, which is their sum."""
    yield penalty / 2 * model.weights.square().sum()
    for features, labels in data:
        yield F.cross_entropy(model(features), labels, reduction="sum") / len(data)


def logistic_loss(model: Logistic, data: LabelledRows, *, penalty: float) -> float:
    """Mean cross-entropy and the penalty of the weights, but not of the bias."""
    return sum(part.item() for part in _losses(model, data, penalty=penalty))


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

    The penalty is the strongest of those that do best on a held-out part of the training images, tried from
    the strongest on, each from the classifier of the one before; then the classifier learns from all.

    Args:
        train_features: (train, D), of any scale; gone through some at a time, so they may lie on a disk.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        penalties: to choose from.
        num_classes: K.
    """
    train = LabelledRows(train_features, train_labels)
    blank = _blank(train.standardization(), num_classes)
    learned, held = (
        LabelledRows(train_features, train_labels, positions) for positions in split_held_out(train_labels)
    )
    chosen, start = _validated(learned, held, penalties=penalties, blank=blank)
    model = fit_logistic(train, num_classes=num_classes, penalty=chosen, start=start)
    ranks, guesses = _ranked(model, LabelledRows(test_features, test_labels))
    return ClassRanks(ranks, test_labels, num_classes, guesses=guesses)


def _ranked(model: Logistic, data: LabelledRows) -> Iterable[Tensor]:
    """The place of the right class of each row, and the class that it is taken for."""

    def judge(features: Tensor, labels: Tensor) -> Tensor:
        is_right = F.one_hot(labels, len(model.bias)).bool()
        return torch.stack(ranked(model(features), is_right), dim=1)

    return data.map(judge).unbind(dim=1)


def _validated(
    learned: LabelledRows, held: LabelledRows, *, penalties: Sequence[float], blank: Logistic
) -> tuple[float, Logistic]:
    """The penalty that does best on held-out images, and the classifier of the others by it."""
    model, best, chosen = blank, -1.0, None
    for penalty in sorted(penalties, reverse=True):
        model = fit_logistic(
            learned,
            num_classes=len(blank.bias),
            penalty=penalty,
            start=model,
            tolerance=1e-4,  # which penalty does best is told long before the classifiers are exact
        )
        ranks, _ = _ranked(model, held)
        accuracy = (ranks <= 1).double().mean().item()
        if accuracy > best:
            best, chosen = accuracy, (penalty, model)
    if chosen is None:
        raise ValueError("a linear probe needs a penalty to choose")
    return chosen
