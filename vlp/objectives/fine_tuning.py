"""Fine-tuning on classes, as MAE (arXiv:2111.06377, A.1) and SimMIM (arXiv:2111.09886) are measured."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from vlp.core.config import Above, AtLeast, Within
from vlp.encoders import ImageEncoder
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.mixing import draw_mix, mixed_images, soft_targets
from vlp.objectives.objective import (
    OBJECTIVES,
    Batch,
    Objective,
    ObjectiveConfig,
    Pooling,
    Step,
    Vocabulary,
    pooled,
)

NORM_EPS = 1e-6


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(ObjectiveConfig):
    """Defaults are MAE's; the encoder's weights come by `init_from`."""

    name: Literal["fine_tuning"] = "fine_tuning"
    paper: ClassVar[str] = "2111.06377"
    pool: Pooling = "mean"
    """What stands for an image: the mean of its patches, or the class token. A new norm follows where
    `image_encoder.final_norm` is false."""
    head_std: Annotated[float, Above(0)] = 2e-5
    """Standard deviation of the classifier's first weights; 0.02 for Swin."""
    mixup: Annotated[float, AtLeast(0)] = 0.8
    """How evenly pairs of images are averaged: alpha of a beta distribution; 0 averages none."""
    cutmix: Annotated[float, AtLeast(0)] = 1.0
    """The same of pairs that exchange a box, at half of the steps where both are chosen; 0 exchanges none."""
    label_smoothing: Annotated[float, Within(0, 1, "[)")] = 0.1
    """Share of every target that is spread over all classes."""

    tells_classes: ClassVar[bool] = True

    @property
    def formula(self) -> str:
        return "-sum over c of y_c log softmax(z)_c"

    @property
    def rows_together(self) -> int:
        return 2 if self.mixup or self.cutmix else 1

    def build(
        self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> "FineTuning":
        return FineTuning(self, image_encoder, mask, vocabulary=vocabulary)


class FineTuning(Objective):
    """An image encoder and a linear classifier; a caption's first token is its image's class."""

    def __init__(
        self,
        config: FineTuningConfig,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(image_encoder, mask)
        self.config = config
        self.context_length = vocabulary.context_length
        self.num_classes = vocabulary.size - len(vocabulary.special_tokens)
        width = image_encoder.width
        is_normed = image_encoder.config.final_norm
        self.norm = nn.Identity() if is_normed else nn.LayerNorm(width, eps=NORM_EPS)
        self.classifier = nn.Linear(width, self.num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=config.head_std)
        nn.init.zeros_(self.classifier.bias)

    def mix(self, batch: Batch, generator: Generator | None) -> Batch:
        """One choice for the global batch, drawn on the host: no value comes back from the device."""
        if not self.training:
            return batch
        seed = (generator or torch.default_generator).initial_seed()
        height, width = batch.images.shape[2:]
        mix = draw_mix(
            np.random.default_rng(seed),
            mixup=self.config.mixup,
            cutmix=self.config.cutmix,
            height=height,
            width=width,
        )
        targets = self._targets(batch, own=mix.own)
        return batch._replace(images=mixed_images(batch.images, mix), targets=targets)

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """What the classifier reads: (B, D)."""
        return (self._pool(self.image_encoder(batch.images, slots), slots),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (features,) = outputs
        targets = self._targets(batch, own=1.0) if batch.targets is None else batch.targets
        log_probabilities = self.classifier(features).float().log_softmax(dim=1)
        return Step(-(targets * log_probabilities).sum(dim=1).mean(), {})

    def changing_buffers(self) -> list[Tensor]:
        return self.image_encoder.changing_buffers()

    def features(self, images: Tensor) -> Tensor:
        return self._pool(self.image_encoder(images), None)

    def classify(self, features: Tensor) -> Tensor:
        return self.classifier(features)

    def _targets(self, batch: Batch, *, own: float) -> Tensor:
        """(B, K), of captions that are one token between the start and the end of a text."""
        smoothing = self.config.label_smoothing
        return soft_targets(batch.tokens[:, 1], self.num_classes, own=own, smoothing=smoothing)

    def _pool(self, states: Tensor, slots: Slots | None) -> Tensor:
        return self.norm(pooled(states, self.config.pool, slots))
