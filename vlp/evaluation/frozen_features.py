"""What protocols have in common that learn classes from features of a model that stays as it is."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import Evaluation
from vlp.evaluation.sets import LabelledImages


class LabelledFeatures(NamedTuple):
    """Features of images to learn from and of images to be classified, with their classes."""

    train_features: Tensor
    """(train, D), perhaps more than memory holds; to be read some rows at a time."""
    train_labels: Tensor
    """(train,) int64"""
    test_features: Tensor
    """(test, D)"""
    test_labels: Tensor
    """(test,) int64"""


@dataclass(frozen=True, kw_only=True)
class FrozenFeatures(Evaluation[LabelledImages]):
    """A protocol that learns from the training images of a set."""

    reads = LabelledImages

    def check_set(self, data: LabelledImages) -> None:
        if not data.has_train:
            raise ValueError(f"{self.name} learns from images, and {data.name} has none: {data.train.place}")

    def labelled_features(self, model: Embedder, data: LabelledImages) -> LabelledFeatures:
        """All that a classifier is learned from and tried on: images of a class."""
        train, (features, labels) = (
            (model.features(table), torch.tensor(table.labels())) for table in (data.train, data.test)
        )
        is_of_class = labels >= 0
        if not is_of_class.all():
            features, labels = features[is_of_class], labels[is_of_class]
        return LabelledFeatures(*train, features, labels)
