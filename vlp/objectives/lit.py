"""LiT (arXiv:2111.07991): a new text encoder learns what a trained image encoder sees, which stays."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch.nn.functional as F
from torch import Tensor

from vlp.encoders import ImageEncoder
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.contrastive import Contrastive, ContrastiveConfig
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import OBJECTIVES, Architecture, Batch, Pooling, Vocabulary, pooled


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class LiTConfig(ContrastiveConfig):
    """Contrastive training of all but the image encoder, whose weights a run takes by `init_from`."""

    name: Literal["lit"] = "lit"  # pyright: ignore[reportIncompatibleVariableOverride]
    paper: ClassVar[str] = "2111.07991"
    pool: Pooling = "mean"
    """What stands for an image: the mean of its patches, as of SuperClass and SimMIM, or the class token."""

    architecture: ClassVar[Architecture] = "other"
    keeps_image_encoder: ClassVar[bool] = True

    @property
    def pooling(self) -> Pooling | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None  # a norm follows

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "LiT":
        return LiT(self, image_encoder, mask, vocabulary=vocabulary)


class LiT(Contrastive):
    """Trains projections and the text encoder; images are encoded as in evaluation."""

    config: LiTConfig

    def __init__(
        self,
        config: LiTConfig,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(config, image_encoder, mask, vocabulary=vocabulary)
        self.image_encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.image_encoder.eval()
        return self

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        features = self._pooled(self.image_encoder(batch.images, slots), slots)
        return self.project(features), self.encode_text(batch.tokens, batch.lengths)

    def features(self, images: Tensor) -> Tensor:
        return self._pooled(self.image_encoder(images), None)

    def _pooled(self, states: Tensor, slots: Slots | None) -> Tensor:
        """Of one scale, whatever the encoder's: (B, 1 + V, D) -> (B, D)."""
        features = pooled(states, self.config.pool, slots)
        return F.layer_norm(features, features.shape[1:])
