"""Classification of frozen features by their nearest neighbours, as in DINO (arXiv:2104.14294)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from vlp.core.config import AtLeast
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import LabelledImages
from vlp.metrics.knn import knn_outcomes
from vlp.metrics.outcomes import Answers


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class KNN(Evaluation[LabelledImages]):
    """Accuracy on the test images, for whose class the nearest training images vote."""

    name = "knn"
    reads = LabelledImages
    headings: ClassVar = {"knn/acc1": "kNN"}

    k: Annotated[int, AtLeast(1)] = 20
    """Neighbours that vote; all training images where there are fewer."""

    @property
    def main_metric(self) -> str:
        return "knn/acc1"

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {"knn/acc1": 1 / len(data.classes)}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, Answers]:
        train, test = (
            (model.features(table), torch.tensor(table.labels())) for table in (data.train, data.test)
        )
        return {"knn": knn_outcomes(*train, *test, k=self.k, num_classes=len(data.classes))}
