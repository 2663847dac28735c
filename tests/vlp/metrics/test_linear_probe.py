"""Logistic regression equals scikit-learn's; its penalty is chosen on images that it did not learn from."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vlp.metrics.linear_probe import (
    Logistic,
    fit_logistic,
    linear_probe_outcomes,
    logistic_loss,
    split_held_out,
)
from vlp.metrics.ranks import class_outcomes
from vlp.metrics.rows import LabelledRows

Split = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Split:
    """Real images, as standardized pixels: 1,000 to learn from and 797 to test on."""
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(np.array(pixels)), torch.from_numpy(np.array(classes)).long()
    images = (images - images.mean(dim=0)) / (images.std(dim=0) + 1e-5)
    return images[:1000], labels[:1000], images[1000:], labels[1000:]


@pytest.mark.parametrize("penalty", [0.1, 1e-3, 1e-5])
def test_loss_and_accuracy_are_those_of_scikit_learn(digits: Split, penalty: float) -> None:
    train, train_labels, test, test_labels = digits
    data = LabelledRows(3 * train + 7, train_labels)  # of another scale: they are standardized
    ours = fit_logistic(data, num_classes=10, penalty=penalty)
    train, test = (ours.standardize(3 * part + 7) for part in (train, test))
    oracle = LogisticRegression(C=1 / (len(train) * penalty), max_iter=5000, tol=1e-8)
    oracle.fit(train.numpy(), train_labels.numpy())
    theirs = Logistic(ours.standardize, torch.from_numpy(oracle.coef_), torch.from_numpy(oracle.intercept_))
    losses = [logistic_loss(model, data, penalty=penalty) for model in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    accuracy = (ours(3 * digits[2] + 7).argmax(dim=1) == test_labels).double().mean().item()
    expected = float(np.mean(oracle.predict(test.numpy()) == test_labels.numpy()))
    assert accuracy == pytest.approx(expected, abs=0.0013)  # one image of 797


def test_where_it_starts_decides_nothing(digits: Split) -> None:
    data = LabelledRows(*digits[:2])
    strong = fit_logistic(data, num_classes=10, penalty=1.0)
    losses = [
        logistic_loss(
            fit_logistic(data, num_classes=10, penalty=1e-3, start=start),
            data,
            penalty=1e-3,
        )
        for start in (None, strong)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_penalty_that_does_best_on_held_out_images_is_taken(digits: Split) -> None:
    train, train_labels, test, test_labels = digits
    parts = (train[:200], train_labels[:200], test, test_labels)
    accuracies = {
        penalties: linear_probe_outcomes(*parts, penalties=penalties, num_classes=10).metrics()["acc1"]
        for penalties in ((1000.0,), (0.1,), (1000.0, 0.1))
    }
    assert accuracies[1000.0, 0.1] == accuracies[0.1,] > accuracies[1000.0,]


def test_every_class_gives_a_fifth_and_one_of_two() -> None:
    labels = torch.tensor([0] * 20 + [1] * 2 + [2])
    learned, held = split_held_out(labels)
    assert labels[held].bincount(minlength=3).tolist() == [4, 1, 0]
    assert torch.equal(torch.cat([learned, held]).sort().values, torch.arange(23))
    with pytest.raises(ValueError, match="needs two training images of a class"):
        split_held_out(torch.arange(3))


def test_classes_that_score_alike_or_are_no_number_come_first() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0], [float("nan")] * 3])
    found = class_outcomes(logits, torch.tensor([0, 0, 0]))
    assert found.ranks.tolist() == [2, 3, 3]
    assert found.guesses is not None
    assert 0 not in found.guesses
