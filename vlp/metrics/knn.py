"""Weighted k-nearest-neighbour classification of frozen features, as in DINO (arXiv:2104.14294)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.outcomes import Answers

TRAIN_ROWS, TEST_ROWS = 16384, 1024
"""Images that are compared with each other at once: 64 MB of similarities, and sets of any size."""


def knn_votes(nearest: Tensor, labels: Tensor, *, temperature: float, num_classes: int) -> Tensor:
    """Votes per class, exp(cosine / temperature) from each neighbour: (test, num_classes).

    Votes are scaled by exp(-1 / temperature), so that no temperature overflows.

    Args:
        nearest: (test, k) cosines of the neighbours.
        labels: (test, k) int64, their classes.
        temperature: lower lets nearer neighbours count for more.
        num_classes: K.
    """
    votes = nearest.new_zeros(len(nearest), num_classes)
    return votes.scatter_add(1, labels, ((nearest - 1) / temperature).exp())


def knn_outcomes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    k: Sequence[int],
    temperature: float = 0.07,
    num_classes: int,
) -> dict[int, Answers]:
    """Whether the class of each test image has the most votes, by the number of neighbours that vote.

    Features that are not finite give none.

    Args:
        train_features: (train, D), of any length: they are normalised here; each is read once, so they may
            lie on a disk.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        k: numbers of neighbours; all training images vote where there are fewer.
        temperature: of the votes; lower lets nearer neighbours count for more.
        num_classes: K.
    """
    cosines, neighbours = _nearest(train_features, test_features, min(max(k), len(train_features)))
    right = {}
    for number in k:
        found = []
        for rows in torch.arange(len(test_labels)).split(TEST_ROWS):
            voters = cosines[rows, :number], train_labels[neighbours[rows, :number]]
            votes = knn_votes(*voters, temperature=temperature, num_classes=num_classes)
            found.append((votes.argmax(dim=1) == test_labels[rows]) & votes.isfinite().all(dim=1))
        right[number] = Answers(torch.cat(found)[None])
    return right


def _nearest(train: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines of each test image's nearest training images, nearest first, and their places: (test, k)."""
    cosines = torch.full((len(test), k), -torch.inf)
    places = torch.zeros(len(test), k, dtype=torch.int64)
    for first in range(0, len(train), TRAIN_ROWS):
        _add_nearer(cosines, places, train[first : first + TRAIN_ROWS], test, first)
    return cosines, places


def _add_nearer(cosines: Tensor, places: Tensor, train: Tensor, test: Tensor, first: int) -> None:
    """Put those of some training images, from a place on, where they are nearer; all in place."""
    k = cosines.shape[1]
    others = F.normalize(train.float(), dim=1)
    for start in range(0, len(test), TEST_ROWS):
        rows = slice(start, start + TEST_ROWS)
        near, near_places = (F.normalize(test[rows].float(), dim=1) @ others.T).topk(
            min(k, len(others)), dim=1
        )
        both = torch.cat([cosines[rows], near], dim=1)
        both_places = torch.cat([places[rows], near_places + first], dim=1)
        cosines[rows], kept = both.topk(k, dim=1)
        places[rows] = both_places.gather(1, kept)
