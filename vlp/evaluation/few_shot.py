"""Few-shot classification of frozen features by least squares, as in CapPa (arXiv:2306.07915)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

from vlp.core.config import AtLeast
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.frozen_features import FrozenFeatures
from vlp.evaluation.sets import LabelledImages
from vlp.metrics.few_shot import few_shot_outcomes
from vlp.metrics.outcomes import Answers


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class FewShot(FrozenFeatures):
    """Accuracy on the test images of a classifier that learned from a few images of each class."""

    name = "few_shot"
    title = "Few-shot classification"

    shots: tuple[Annotated[int, AtLeast(1)], ...] = (10,)
    """Training images per class; a classifier for each of these numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shots:
            raise ValueError("shots must be one number or more, got none")

    @classmethod
    def columns(cls, metrics: Collection[str]) -> Mapping[str, str]:
        parts = (metric.split("/") for metric in metrics)
        return {
            f"few_shot/{part[1]}/acc1": f"{part[1]}-shot"
            for part in parts
            if part[0] == "few_shot" and part[-1] == "acc1"
        }

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(
            f"few_shot/{shots}/{metric}" for shots in self.shots for metric in ("acc1", "acc1_std")
        )

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {f"few_shot/{shots}/acc1": 1 / len(data.classes) for shots in self.shots}

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, Answers]:
        features = self.labelled_features(model, data)
        return {
            f"few_shot/{shots}": few_shot_outcomes(*features, shots=shots, num_classes=len(data.classes))
            for shots in self.shots
        }
