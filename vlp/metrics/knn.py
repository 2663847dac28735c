"""Weighted k-nearest-neighbour classification of frozen features, as in DINO (arXiv:2104.14294)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.outcomes import Answers

CHUNK_SIZE = 256  # test images compared at once: 1.3 GB of similarities to ImageNet's training set


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
        train_features: (train, D), of any length: they are normalised here.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        k: numbers of neighbours; all training images vote where there are fewer.
        temperature: of the votes; lower lets nearer neighbours count for more.
        num_classes: K.
    """
    train, most = F.normalize(train_features.float(), dim=1), min(max(k), len(train_features))
    right: dict[int, list[Tensor]] = {number: [] for number in k}
    for features, labels in zip(test_features.split(CHUNK_SIZE), test_labels.split(CHUNK_SIZE), strict=True):
        nearest, indices = (F.normalize(features.float(), dim=1) @ train.T).topk(most, dim=1)
        for number, found in right.items():
            voters = nearest[:, :number], train_labels[indices[:, :number]]
            votes = knn_votes(*voters, temperature=temperature, num_classes=num_classes)
            found.append((votes.argmax(dim=1) == labels) & votes.isfinite().all(dim=1))
    return {number: Answers(torch.cat(found)[None]) for number, found in right.items()}
