"""Classification of frozen features by their nearest neighbours, as in DINO (arXiv:2104.14294)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from vlp.core.config import AtLeast
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.frozen_features import FrozenFeatures
from vlp.evaluation.sets import LabelledImages
from vlp.metrics.knn import knn_outcomes
from vlp.metrics.outcomes import Answers


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class KNN(FrozenFeatures):
    """Accuracy on the test images, for whose class the nearest training images vote."""

    name = "knn"
    title = "Nearest neighbours"
    averaged = "knn/acc1"
    headings: ClassVar = {"knn/acc1": "kNN"}

    k: Annotated[int, AtLeast(1)] = 20
    """Neighbours that vote; all training images where there are fewer."""
    also: tuple[Annotated[int, AtLeast(1)], ...] = (10, 100, 200)
    """Other numbers of neighbours, of those that a set has as many training images for; in metrics with
    their number, as `knn/100/acc1`."""

    @property
    def main_metric(self) -> str:
        return "knn/acc1"

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(("knn/acc1", *(f"knn/{k}/acc1" for k in self.also)))

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {"knn/acc1": 1 / len(data.classes)}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, Answers]:
        features = self.labelled_features(model, data)
        also = [k for k in self.also if k <= len(features.train_labels)]
        found = knn_outcomes(*features, k=(self.k, *also), num_classes=len(data.classes))
        return {"knn": found[self.k], **{f"knn/{k}": found[k] for k in also}}
