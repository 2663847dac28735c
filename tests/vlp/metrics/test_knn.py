"""Nearest-neighbour classification against scikit-learn."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import neighbors

from vlp.metrics.knn import knn_outcomes

KNeighborsClassifier: Any = neighbors.KNeighborsClassifier  # without types: its defaults would tell them


def clusters(num_images, centres, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(centres), (num_images,), generator=generator)
    noise = torch.randn(num_images, centres.shape[1], generator=generator)
    return 3 * (centres[labels] + 1.5 * noise), labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0)])
def test_equals_scikit_learn(k, temperature):
    centres = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    train, train_labels = clusters(300, centres, seed=1)
    test, test_labels = clusters(600, centres, seed=2)
    oracle = KNeighborsClassifier(
        k, weights=lambda distance: np.exp((1 - distance) / temperature), metric="cosine"
    )
    expected = oracle.fit(train.numpy(), train_labels.numpy()).score(test.numpy(), test_labels.numpy())
    parts = (train, train_labels, test, test_labels)
    outcomes = knn_outcomes(*parts, k=[1, k], temperature=temperature, num_classes=6)[k]
    assert outcomes.metrics() == pytest.approx({"acc1": expected})
    assert 0.3 < expected < 0.95


def test_near_neighbours_outvote_many_far_ones():
    """One neighbour of the class at cosine 1, three of another at cosine 0."""
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    query = (torch.tensor([[5.0, 0.0]]), torch.tensor([0]))
    assert knn_outcomes(train, labels, *query, k=[4], num_classes=2)[4].metrics() == {"acc1": 1.0}
    cooler = knn_outcomes(train, labels, *query, k=[4], temperature=10, num_classes=2)
    assert cooler[4].metrics() == {"acc1": 0.0}


def test_small_temperature_does_not_overflow():
    features, labels = torch.eye(3), torch.arange(3)
    found = knn_outcomes(features, labels, features, labels, k=[20], temperature=1e-3, num_classes=3)
    assert found[20].metrics() == {"acc1": 1.0}


def test_features_that_are_not_finite_give_no_class() -> None:
    train, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    nothing = torch.full((40, 4), float("nan"))
    for features in (nothing, train):
        found = knn_outcomes(features, labels, nothing, labels, k=[20], num_classes=2)
        assert not found[20].is_right.any()
