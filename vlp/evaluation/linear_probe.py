"""Linear probe of frozen features: logistic regression with a validated penalty (arXiv:2103.00020, A.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from vlp.core.config import Above
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.frozen_features import FrozenFeatures
from vlp.evaluation.sets import LabelledImages, chance_of
from vlp.metrics.linear_probe import linear_probe_outcomes
from vlp.metrics.outcomes import ClassRanks


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class LinearProbe(FrozenFeatures):
    """Accuracies on the test images of a linear classifier that learned from all training images."""

    name = "linear_probe"
    title = "Linear probe"
    averaged = "linear_probe/acc1"
    headings: ClassVar = {"linear_probe/acc1": "linear"}

    penalties: tuple[Annotated[float, Above(0)], ...] = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
    """Weights of half the squared weights beside the mean loss; the one that does best on a held-out fifth of
    the training images is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalties:
            raise ValueError("penalties must be one number or more, got none")

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(f"linear_probe/{metric}" for metric in ("acc1", "acc5", "mean_per_class_recall"))

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {f"linear_probe/{metric}": value for metric, value in chance_of(len(data.classes)).items()}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, ClassRanks]:
        features = self.labelled_features(model, data)
        found = linear_probe_outcomes(*features, penalties=self.penalties, num_classes=len(data.classes))
        return {"linear_probe": found}
