"""Choosing the right caption of an image among similar ones, as SugarCrepe (arXiv:2306.14610)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from math import comb
from statistics import mean
from typing import ClassVar

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import ImagesWithChoices
from vlp.metrics.choice import Choice, choice_outcomes
from vlp.metrics.outcomes import Choices


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class ChoiceOfCaptions(Evaluation[ImagesWithChoices]):
    """Share of the choices that are right, of all, by part, and as the mean of the parts.

    Of two images and two captions, as Winoground's (arXiv:2204.03162): the text, image and group score. Where
    images have two captions that say the same, as SugarCrepe++'s (arXiv:2406.11171), both have to be
    preferred, and texts alone are measured too.
    """

    name = "choice"
    title = "Choice of captions"
    reads = ImagesWithChoices
    needs_text = True
    headings: ClassVar = {
        "choice/acc1": "choice",
        "choice/text_only_acc1": "choice, texts alone",
        "choice/text_score": "text score",
        "choice/image_score": "image score",
        "choice/group_score": "group score",
    }

    @classmethod
    def details(cls, metrics: Collection[str]) -> Mapping[str, str]:
        """The parts, then the means of those that end alike, and of all."""
        found = {metric: metric.split("/") for metric in metrics if metric.startswith(f"{cls.name}/")}
        parts = {
            metric: p[1] for metric, p in found.items() if len(p) == 3 and p[2] == "acc1" and "_" in p[1]
        }
        means = {
            metric: f"mean {p[1]}" for metric, p in found.items() if len(p) == 3 and p[2] == "mean_part_acc1"
        }
        whole = {"choice/mean_part_acc1": "mean of parts"}
        return {
            **{metric: part.replace("_", " ") for metric, part in parts.items()},
            **means,
            **{metric: heading for metric, heading in whole.items() if metric in metrics},
            **cls.columns(metrics),
        }

    @property
    def metrics(self) -> frozenset[str]:
        return super().metrics | {"choice/mean_part_acc1", "choice/mean_part_text_only_acc1"}

    def chance(self, data: ImagesWithChoices) -> Mapping[str, float]:
        _, choices = data.choices
        if len(choices[0].images) > 1:
            return {"choice/text_score": 1 / 4, "choice/image_score": 1 / 4, "choice/group_score": 1 / 6}
        parts: dict[str, list[float]] = {}
        for choice in choices:
            parts.setdefault(choice.part, []).append(_by_chance(choice))
        found = {"choice/acc1": mean(chain(*parts.values()))}
        return found | ({"choice/mean_part_acc1": mean(map(mean, parts.values()))} if len(parts) > 1 else {})

    def measure(self, model: Embedder, data: ImagesWithChoices) -> Mapping[str, Choices]:
        captions, choices = data.choices
        outcomes = choice_outcomes(model.embed_images(data.images), model.embed_texts(captions), choices)
        return {f"choice/{part}".rstrip("/"): found for part, found in outcomes.items()}


def _by_chance(choice: Choice) -> float:
    """Probability that the right captions are the first of all, in an arbitrary order."""
    num_right = 1 + len(choice.paraphrases)
    return 1 / comb(num_right + len(choice.captions) - 1, num_right)
