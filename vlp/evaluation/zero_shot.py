"""Zero-shot classification by prompts made of the names of the classes (arXiv:2103.00020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import LabelledImages
from vlp.metrics.outcomes import ClassRanks
from vlp.metrics.zero_shot import class_embeddings, zero_shot_outcomes


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluation[LabelledImages]):
    """Accuracies on the test images; a class is the mean of its prompts."""

    name = "zero_shot"
    reads = LabelledImages
    needs_text = True
    headings: ClassVar = {"zero_shot/acc1": "zero-shot"}

    @property
    def main_metric(self) -> str:
        return "zero_shot/acc1"

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(f"zero_shot/{metric}" for metric in ("acc1", "acc5", "mean_per_class_recall"))

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {f"zero_shot/{metric}": value for metric, value in data.chance.items()}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, ClassRanks]:
        classes = class_embeddings(model.embed_texts, data.classes, data.templates)
        images = model.project(model.features(data.test))
        return {"zero_shot": zero_shot_outcomes(images, torch.tensor(data.test.labels()), classes)}
