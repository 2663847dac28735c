"""Accuracy of the classes that a model was fine-tuned on (arXiv:2111.06377, A.1; arXiv:2111.09886)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlp.core.config import naming
from vlp.data.image_tables import ImageTable
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import LabelledImages, chance_of
from vlp.metrics.outcomes import ClassRanks
from vlp.metrics.ranks import class_outcomes
from vlp.tokenizers import TokenizerConfig


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class Classifier(Evaluation[LabelledImages]):
    """Accuracies on the test images of the model's own classifier, among the classes of the set."""

    name = "classifier"
    title = "Fine-tuned classification"
    averaged = "classifier/acc1"
    reads = LabelledImages
    needs_classes = True
    headings: ClassVar = {"classifier/acc1": "fine-tuned"}

    @property
    def main_metric(self) -> str:
        return "classifier/acc1"

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(f"classifier/{metric}" for metric in ("acc1", "acc5", "mean_per_class_recall"))

    def check_classes(self, data: LabelledImages, tokenizer: TokenizerConfig) -> None:
        with naming(f"{self.name} on {data.name}: "):
            tokenizer.build().token_rows(data.classes)

    def embeds(self, data: LabelledImages) -> tuple[ImageTable]:
        return (data.test,)

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        found = chance_of(len(data.among or data.classes))
        return {f"classifier/{metric}": value for metric, value in found.items()}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, ClassRanks]:
        labels = torch.tensor(data.test.labels())
        of_set = torch.from_numpy(model.tokenizer.token_rows(data.classes).ids)
        logits = model.classify(model.features(data.test))[:, of_set]
        is_of_class = labels >= 0
        return {self.name: class_outcomes(logits[is_of_class], labels[is_of_class], among=data.among)}
