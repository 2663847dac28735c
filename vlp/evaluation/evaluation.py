"""What a protocol of evaluation is: how a trained model is measured on a set."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from vlp.core.config import StrictConfig
from vlp.core.registry import Registry
from vlp.data.image_tables import ImageTable
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.examples import Examples
from vlp.evaluation.sets import EvaluationSet
from vlp.metrics.outcomes import Outcomes
from vlp.objectives import ObjectiveConfig
from vlp.tokenizers import TokenizerConfig

EVALUATIONS = Registry()
Set = TypeVar("Set", bound=EvaluationSet)


@dataclass(frozen=True, kw_only=True)
class Evaluation(ABC, StrictConfig, Generic[Set]):
    """One way of measuring models on sets of one kind; its fields are the settings that decide the result."""

    name: ClassVar[str]
    """The key of its settings under `evaluation.protocols`."""
    reads: ClassVar[type[EvaluationSet]]
    """The sets that it measures on."""
    needs_text: ClassVar[bool] = False
    """Whether it compares images with texts."""
    needs_classes: ClassVar[bool] = False
    """Whether it asks a model for the classes that it learned to tell."""
    reads_weights: ClassVar[bool] = True
    """Whether what a model has learned changes its numbers."""
    headings: ClassVar[Mapping[str, str]] = {}
    """Metrics that a table of results shows, in the order of its columns, each with its heading."""
    title: ClassVar[str] = ""
    """Of the table of this protocol alone; its name where there is none."""
    averaged: ClassVar[str] = ""
    """The metric of which that table has a mean over sets."""

    @property
    def main_metric(self) -> str | None:
        """The metric by which checkpoints are compared, higher is better; None for none."""
        return None

    @property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics that it gives on a set, those included that only some sets have."""
        return frozenset(self.headings) | ({self.main_metric} if self.main_metric else set())

    def check(self, objective: ObjectiveConfig) -> None:
        """Raise a ValueError, of one line, unless models of this objective can be measured so."""
        if self.needs_text and not objective.encodes_text:
            raise ValueError(f"{self.name} needs a text encoder, and objective {objective.name} has none")
        if self.needs_classes and not objective.tells_classes:
            raise ValueError(f"{self.name} needs a classifier, and objective {objective.name} has none")

    def check_set(self, data: Set) -> None:
        """Raise a ValueError, of one line, unless models can be measured so on a set."""

    def check_classes(self, data: Set, tokenizer: TokenizerConfig) -> None:
        """Raise a ValueError, of one line, unless a model that learned classes knows those of a set."""

    def embeds(self, data: Set) -> Sequence[ImageTable]:
        """Images of a set of which it reads the model's features; many of these are encoded by workers."""
        return data.tables

    @abstractmethod
    def measure(self, model: Embedder, data: Set) -> Mapping[str, Outcomes]:
        """What becomes of every item of a set, by the first part of the names of its metrics.

        Args:
            model: in evaluation mode.
        """

    def chance(self, data: Set) -> Mapping[str, float]:
        """What guessing gives on a set, by the names of metrics; of those where it is known."""
        return {}

    def examples(self, data: Set, outcomes: Mapping[str, Outcomes], *, count: int) -> Mapping[str, Examples]:
        """Some items of a set that went best, and that went worst; none of protocols without pictures.

        Args:
            outcomes: what `measure` gave.
            count: of each kind, at most.
        """
        return {}

    @classmethod
    def columns(cls, metrics: Collection[str]) -> Mapping[str, str]:
        """The columns of a table that some metrics of a set fill: `headings`, of those that are there."""
        return {metric: heading for metric, heading in cls.headings.items() if metric in metrics}

    @classmethod
    def details(cls, metrics: Collection[str]) -> Mapping[str, str]:
        """The columns of the table of this protocol alone, in the papers' order: `columns`, or more."""
        return cls.columns(metrics)
