"""What became of single items, from which alone every number about a set is derived."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Outcomes(ABC):
    """What became of each item of a set, in the set's order: tensors with a column for each."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The numbers about all items, by name."""


@dataclass(frozen=True)
class MatchRanks(Outcomes):
    """How soon queries found a match."""

    ranks: Tensor
    """(Q,) int64, the place of each query's best match, from 1."""

    def metrics(self) -> dict[str, float]:
        """Recall@1/5/10 in [0, 1] and median rank, from 1."""
        recall = {f"recall@{k}": (self.ranks <= k).double().mean().item() for k in RECALL_AT}
        return recall | {"median_rank": self.ranks.double().quantile(0.5).item()}


@dataclass(frozen=True)
class ClassRanks(Outcomes):
    """How soon the right class came among all classes."""

    ranks: Tensor
    """(Q,) int64, the place of each image's right class, from 1."""
    labels: Tensor
    """(Q,) int64 in 0..num_classes-1, the right class."""
    num_classes: int
    """K."""

    def metrics(self) -> dict[str, float]:
        """Accuracies in [0, 1]; `acc5` only where there are more than five classes.

        The mean per-class recall is over the classes that have images.
        """
        is_right = (self.ranks <= 1).double()
        images_of_class = self.labels.bincount(minlength=self.num_classes)
        recall = is_right.new_zeros(self.num_classes).index_add(0, self.labels, is_right) / images_of_class
        metrics = {"acc1": is_right.mean().item()}
        if self.num_classes > 5:
            metrics["acc5"] = (self.ranks <= 5).double().mean().item()
        return metrics | {"mean_per_class_recall": recall[images_of_class > 0].mean().item()}


@dataclass(frozen=True)
class Answers(Outcomes):
    """Whether images got the right class, in one trial or in several that chance tells apart."""

    is_right: Tensor
    """(R, Q) bool, for each of R trials."""

    def metrics(self) -> dict[str, float]:
        """Mean accuracy in [0, 1] of the trials, and its standard deviation where there are several."""
        accuracy = self.is_right.double().mean(dim=1)
        metrics = {"acc1": accuracy.mean().item()}
        return metrics if len(accuracy) == 1 else metrics | {"acc1_std": accuracy.std(correction=0).item()}


def named_metrics(outcomes: Mapping[str, Outcomes]) -> dict[str, float]:
    """The metrics of outcomes that have names: `knn` with `acc1` gives `knn/acc1`."""
    return {f"{name}/{key}": value for name, one in outcomes.items() for key, value in one.metrics().items()}
