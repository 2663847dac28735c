"""Attentive probe: a head that pools frozen patch states by attention (arXiv:2202.03026, V-JEPA's too)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from vlp.core.config import Above, AtLeast
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.frozen_features import FrozenFeatures
from vlp.evaluation.sets import LabelledImages, chance_of
from vlp.metrics.attentive_probe import attentive_outcomes, fit_attentive
from vlp.metrics.few_shot import draw_shots
from vlp.metrics.fitting import Recipe
from vlp.metrics.outcomes import ClassRanks


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class AttentiveProbe(FrozenFeatures):
    """Accuracies on the test images of an attentive head that learned from training images.

    It costs more than all others, so it is measured where its `epochs` are given.
    """

    name = "attentive_probe"
    title = "Attentive probe"
    averaged = "attentive_probe/acc1"
    headings: ClassVar = {"attentive_probe/acc1": "attentive"}

    epochs: Annotated[int, AtLeast(1)]
    """Passes over the training images; 20 are usual."""
    shots: Annotated[int, AtLeast(1)] = 100
    """Training images of each class at most: their patch states are held in memory."""
    lr: Annotated[float, Above(0)] = 1e-3
    """Peak learning rate of AdamW, which a cosine takes to 0."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.05
    """Of the head's weights."""
    batch_size: Annotated[int, AtLeast(1)] = 128
    """Images per step."""

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(f"attentive_probe/{metric}" for metric in ("acc1", "acc5", "mean_per_class_recall"))

    def chance(self, data: LabelledImages) -> Mapping[str, float]:
        return {f"attentive_probe/{metric}": value for metric, value in chance_of(len(data.classes)).items()}

    def embeds(self, data: LabelledImages) -> tuple[()]:
        return ()

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, ClassRanks]:
        train_labels, labels = (torch.tensor(table.labels()) for table in (data.train, data.test))
        drawn = draw_shots(train_labels, self.shots, seed=0).sort().values  # as they are read
        head = fit_attentive(
            torch.cat(list(model.patch_states(data.train, drawn))),
            train_labels[drawn],
            num_classes=len(data.classes),
            recipe=Recipe(
                epochs=self.epochs,
                lr=self.lr,
                weight_decay=self.weight_decay,
                batch_size=self.batch_size,
            ),
            device=model.device,
        )
        (of_class,) = (labels >= 0).nonzero(as_tuple=True)
        return {
            self.name: attentive_outcomes(head, model.patch_states(data.test, of_class), labels[of_class])
        }
