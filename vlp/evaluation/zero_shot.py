"""Zero-shot classification by prompts made of the names of the classes (arXiv:2103.00020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from vlp.core.config import Above
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import LabelledImages, chance_of
from vlp.metrics.outcomes import Outcomes
from vlp.metrics.zero_shot import class_embeddings, out_of_distribution_outcomes, zero_shot_outcomes


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluation[LabelledImages]):
    """Accuracies on the test images; a class is the mean of its prompts.

    Where some images show none of the classes, also how well these are told by the classifier's doubt, as the
    area under the curve of precision over recall.
    """

    name = "zero_shot"
    title = "Zero-shot classification"
    averaged = "zero_shot/acc1"
    reads = LabelledImages
    needs_text = True
    headings: ClassVar = {"zero_shot/acc1": "zero-shot", "zero_shot/ood/aupr": "OOD AUPR"}

    temperature: Annotated[float, Above(0)] = 0.01
    """Of the probabilities of classes by which doubt is told: that of a CLIP whose training has ended."""

    @property
    def main_metric(self) -> str:
        return "zero_shot/acc1"

    @property
    def metrics(self) -> frozenset[str]:
        names = ("acc1", "acc5", "mean_per_class_recall", "ood/aupr")
        return frozenset(f"zero_shot/{metric}" for metric in names)

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        found = chance_of(len(data.among or data.classes))
        labels = data.test.labels()
        if -1 in labels:
            found = {**found, "ood/aupr": labels.count(-1) / len(labels)}
        return {f"zero_shot/{metric}": value for metric, value in found.items()}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, Outcomes]:
        classes = class_embeddings(model.embed_texts, data.classes, data.templates)
        images, labels = model.project(model.features(data.test)), torch.tensor(data.test.labels())
        is_of_class = labels >= 0
        found: dict[str, Outcomes] = {}
        if is_of_class.any():
            found["zero_shot"] = zero_shot_outcomes(
                images[is_of_class], labels[is_of_class], classes, among=data.among
            )
        if not is_of_class.all():
            allowed = classes if data.among is None else classes[data.among]
            found["zero_shot/ood"] = out_of_distribution_outcomes(
                images, labels, allowed, temperature=self.temperature
            )
        return found
