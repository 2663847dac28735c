"""Which classes are taken for which."""

from typing import NamedTuple

import torch
from torch import Tensor


class Confusion(NamedTuple):
    """How often images of each class were taken for each class."""

    classes: Tensor
    """(C,) int64, the classes that images are of or were taken for, in their order."""
    shares: Tensor
    """(C, C) float64: of the images of a row's class, those that were taken for a column's; a row of a class
    without images is 0."""


def confusion(labels: Tensor, guesses: Tensor) -> Confusion:
    """The confusion matrix, whose diagonal is the recall of each class.

    Args:
        labels: (Q,) int64, the class of each image.
        guesses: (Q,) int64, the class that it was taken for.
    """
    pairs = torch.stack([labels, guesses])
    classes, places = pairs.unique(return_inverse=True)
    C = len(classes)
    counts = (places[0] * C + places[1]).bincount(minlength=C * C).view(C, C).double()
    return Confusion(classes, counts / counts.sum(dim=1, keepdim=True).clamp(min=1))
