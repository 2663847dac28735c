"""What became of single items, from which alone every number about a set is derived."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from vlp.core.registry import Registry
from vlp.metrics.confusion import Confusion, confusion
from vlp.metrics.statistics import (
    AveragePrecision,
    Bleu,
    ClassMean,
    KendallTau,
    Mean,
    Median,
    Ratio,
    Statistic,
    TrialSpread,
)

OUTCOMES = Registry()
RECALL_AT = (1, 5, 10)


class NoOutcomesError(ValueError):
    """A model, or a set, of which no outcomes can be told; in one line."""


@dataclass(frozen=True)
class Outcomes(ABC):
    """What became of each of the Q items of a set, in the set's order.

    Fields are tensors, whose last dimension is Q, or settings of plain types: so every class can be written
    to a table and read again.
    """

    name: ClassVar[str]
    """By which a table says what it holds."""
    images: Tensor | None = field(default=None, kw_only=True)
    """(Q,) int64, the image that each item comes from: items of one image are not independent. None where
    each item is an image."""

    @abstractmethod
    def statistics(self) -> dict[str, Statistic]:
        """The numbers about the items, by the last part of their names."""

    def metrics(self) -> dict[str, float]:
        """The numbers about all items, each taken once."""
        once = torch.ones(1, len(self), dtype=torch.float64)
        return {key: statistic(once).item() for key, statistic in self.statistics().items()}

    def confusion(self) -> Confusion | None:
        """Which classes are taken for which; None where items have none, or it is not known."""
        return None

    def columns(self) -> dict[str, Tensor]:
        """What is known of every item, by the names of fields: (..., Q) each."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in values if isinstance(value, Tensor)}

    def __len__(self) -> int:
        return next(iter(self.columns().values())).shape[-1]


@OUTCOMES.register
@dataclass(frozen=True)
class MatchRanks(Outcomes):
    """How soon queries found a match."""

    name = "match_ranks"
    ranks: Tensor
    """(Q,) int64, the place of each query's best match, from 1."""
    firsts: Tensor | None = field(default=None, kw_only=True)
    """(Q,) int64, the candidate that came first; None where it is not known."""

    def statistics(self) -> dict[str, Statistic]:
        """Recall@1/5/10 in [0, 1] and median rank, from 1."""
        recall = {f"recall@{k}": Mean(self.ranks <= k) for k in RECALL_AT}
        return {**recall, "median_rank": Median(self.ranks)}


@OUTCOMES.register
@dataclass(frozen=True)
class ClassRanks(Outcomes):
    """How soon the right class came among all classes."""

    name = "class_ranks"
    ranks: Tensor
    """(Q,) int64, the place of each image's right class, from 1."""
    labels: Tensor
    """(Q,) int64 in 0..num_classes-1, the right class."""
    num_classes: int
    """K."""
    guesses: Tensor | None = field(default=None, kw_only=True)
    """(Q,) int64, the class that each image was taken for; None where it is not known."""

    def statistics(self) -> dict[str, Statistic]:
        """Accuracies in [0, 1]; `acc5` only where there are more than five classes.

        The mean per-class recall is over the classes that have images.
        """
        numbers: dict[str, Statistic] = {"acc1": Mean(self.ranks <= 1)}
        if self.num_classes > 5:
            numbers["acc5"] = Mean(self.ranks <= 5)
        return numbers | {"mean_per_class_recall": ClassMean(self.ranks <= 1, self.labels)}

    def confusion(self) -> Confusion | None:
        return None if self.guesses is None else confusion(self.labels, self.guesses)


@OUTCOMES.register
@dataclass(frozen=True)
class Answers(Outcomes):
    """Whether images got the right class, in one trial or in several that chance tells apart."""

    name = "answers"
    is_right: Tensor
    """(T, Q) bool, for each of T trials."""

    def statistics(self) -> dict[str, Statistic]:
        """Mean accuracy in [0, 1] of the trials, and its standard deviation where there are several."""
        if len(self.is_right) == 1:
            return {"acc1": Mean(self.is_right[0])}
        mean = self.is_right.double().mean(dim=0)
        return {"acc1": Mean(mean), "acc1_std": TrialSpread(self.is_right)}


@OUTCOMES.register
@dataclass(frozen=True)
class Detections(Outcomes):
    """How much items look like what is to be found among others."""

    name = "detections"
    scores: Tensor
    """(Q,) float, higher the more."""
    is_positive: Tensor
    """(Q,) bool, what is to be found."""

    def statistics(self) -> dict[str, Statistic]:
        """The area under the curve of precision over recall, in [0, 1]; guessing gives the share of what is
        to be found."""
        return {"aupr": AveragePrecision(self.scores, self.is_positive)}


@OUTCOMES.register
@dataclass(frozen=True)
class Choices(Outcomes):
    """Whether images preferred their captions to others, and captions their images."""

    name = "choices"
    texts_right: Tensor
    """(Q,) bool, whether the right caption was chosen for every image."""
    images_right: Tensor
    """(Q,) bool, whether the right image was chosen for every caption."""
    parts: Tensor
    """(Q,) int64, the part of the set."""
    num_images: int
    """Of each choice."""
    paraphrases_right: Tensor | None = None
    """(Q,) bool, whether the captions that say the same are nearer to each other than to any other, of texts
    alone; None where each image has one right caption."""

    def of_parts(self, parts: Sequence[int]) -> "Choices":
        """Those of some parts alone."""
        is_in = torch.isin(self.parts, torch.tensor(parts))
        return replace(self, **{name: values[is_in] for name, values in self.columns().items()})

    def statistics(self) -> dict[str, Statistic]:
        """Accuracy in [0, 1], and the mean of several parts'; Winoground's scores of two images or more."""
        if self.num_images > 1:
            both = self.texts_right & self.images_right
            return {
                "text_score": Mean(self.texts_right),
                "image_score": Mean(self.images_right),
                "group_score": Mean(both),
            }
        is_right = {"acc1": self.texts_right}
        if self.paraphrases_right is not None:
            is_right["text_only_acc1"] = self.paraphrases_right
        numbers: dict[str, Statistic] = {key: Mean(values) for key, values in is_right.items()}
        if len(self.parts.unique()) > 1:
            numbers |= {f"mean_part_{key}": ClassMean(values, self.parts) for key, values in is_right.items()}
        return numbers


@OUTCOMES.register
@dataclass(frozen=True)
class CaptionScores(Outcomes):
    """How alike the caption that a model gave each image is to those that people gave it."""

    name = "caption_scores"
    cider: Tensor
    """(Q,) float, CIDEr-D in [0, 10]."""
    rouge_l: Tensor
    """(Q,) float in [0, 1]."""
    correct: Tensor
    """(4, Q) int64, its n-grams that a reference has too, by their length."""
    guessed: Tensor
    """(4, Q) int64, its n-grams."""
    lengths: Tensor
    """(2, Q) int64, its words, and those of the reference that is nearest in length."""
    captions: Sequence[str] = ()
    """Q texts, the captions themselves."""

    def statistics(self) -> dict[str, Statistic]:
        """CIDEr-D in [0, 10], of which papers give the hundredfold; ROUGE-L; BLEU of up to 1 to 4 words."""
        bleu = {
            f"bleu{n}": Bleu(self.correct[:n], self.guessed[:n], self.lengths)
            for n in range(1, len(self.correct) + 1)
        }
        return {"cider": Mean(self.cider), "rouge_l": Mean(self.rouge_l), **bleu}


@OUTCOMES.register
@dataclass(frozen=True)
class Judgements(Outcomes):
    """How well captions fit images by a model, and by people."""

    name = "judgements"
    scores: Tensor
    """(Q,) float, the model's, higher for what fits better."""
    judgements: Tensor
    """(Q,) float, of one person, or of several together."""

    def statistics(self) -> dict[str, Statistic]:
        """Kendall's tau in [-1, 1], by both ways of reckoning with ties."""
        return {
            "tau_b": KendallTau(self.scores, self.judgements, "b"),
            "tau_c": KendallTau(self.scores, self.judgements, "c"),
        }


@OUTCOMES.register
@dataclass(frozen=True)
class Hidden(Outcomes):
    """How much of images a mask hides, and how far that is from what is left."""

    name = "hidden"
    shares: Tensor
    """(Q,) float in [0, 1], of the patches that are hidden."""
    distances: Tensor
    """(Q,) float, mean distance of a hidden pixel to the nearest visible one, in sides of the image."""

    def statistics(self) -> dict[str, Statistic]:
        """The share in [0, 1]; AvgDist in sides of the image, of which papers give pixels."""
        return {"share": Mean(self.shares), "avg_dist": Mean(self.distances)}


@OUTCOMES.register
@dataclass(frozen=True)
class ObjectsLeft(Outcomes):
    """How much of what captions name a mask leaves, and of the rest of images."""

    name = "objects_left"
    objects: Tensor
    """(Q,) float, pixels of objects that are left."""
    all_objects: Tensor
    """(Q,) float, pixels of objects."""
    background: Tensor
    """(Q,) float, other pixels that are left."""
    all_background: Tensor
    """(Q,) float, other pixels."""

    def statistics(self) -> dict[str, Statistic]:
        """Shares in [0, 1] that are left of the pixels of all images."""
        return {
            "objects": Ratio(self.objects, self.all_objects),
            "background": Ratio(self.background, self.all_background),
        }


@OUTCOMES.register
@dataclass(frozen=True)
class WhatIsLeft(Outcomes):
    """How similar captions are to their whole images, and to what a mask leaves of these."""

    name = "what_is_left"
    before: Tensor
    """(Q,) float in [-1, 1], cosine similarity of each caption and its image."""
    after: Tensor
    """(Q,) float in [-1, 1], with what is left of the image."""
    of_others: Tensor
    """(Q,) float in [-1, 1], the mean of a caption's similarities with the other images, whole."""

    def statistics(self) -> dict[str, Statistic]:
        """Means of the similarities; and of the lead that a caption's image has over the others, the part
        that is left: 1 where hiding takes nothing of what the caption names, 0 where it takes all."""
        lead = self.before - self.of_others, self.after - self.of_others
        return {"before": Mean(self.before), "after": Mean(self.after), "left": Ratio(lead[1], lead[0])}


def named_metrics(outcomes: Mapping[str, Outcomes]) -> dict[str, float]:
    """The metrics of outcomes that have names: `knn` with `acc1` gives `knn/acc1`."""
    return {f"{name}/{key}": value for name, one in outcomes.items() for key, value in one.metrics().items()}
