"""Weighted k-nearest-neighbour classification of frozen features, as in DINO (arXiv:2104.14294)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.outcomes import Answers

CHUNK_SIZE = 256  # test images compared at once: 1.3 GB of similarities to ImageNet's training set


def knn_votes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """Each test image's votes per class, exp(cosine / temperature) from each neighbour: (test, num_classes).

    Votes are scaled by exp(-1 / temperature), so that no temperature overflows.
    """
    similarity = F.normalize(test_features.float(), dim=1) @ F.normalize(train_features.float(), dim=1).T
    nearest, indices = similarity.topk(min(k, len(train_features)), dim=1)
    votes = nearest.new_zeros(len(test_features), num_classes)
    return votes.scatter_add(1, train_labels[indices], ((nearest - 1) / temperature).exp())


def knn_outcomes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int,
) -> Answers:
    """Whether the class of each test image has the most votes; features that are not finite give none.

    Args:
        train_features: (train, D), of any length: they are normalised here.
        train_labels: (train,) int64 in 0..num_classes-1.
        test_features: (test, D).
        test_labels: (test,) int64.
        k: neighbours that vote; all training images where there are fewer.
        temperature: of the votes; lower lets nearer neighbours count for more.
        num_classes: K.
    """
    right = []
    for features, labels in zip(test_features.split(CHUNK_SIZE), test_labels.split(CHUNK_SIZE), strict=True):
        votes = knn_votes(
            train_features, train_labels, features, k=k, temperature=temperature, num_classes=num_classes
        )
        right.append((votes.argmax(dim=1) == labels) & votes.isfinite().all(dim=1))
    return Answers(torch.cat(right)[None])
