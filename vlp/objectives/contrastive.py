"""CLIP (arXiv:2103.00020); SigLIP by its loss, FLIP or cluster masking by its mask (random, cluster)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import AtLeast
from vlp.core.registry import ByName
from vlp.encoders import ImageEncoder
from vlp.encoders.blocks import Encoder
from vlp.encoders.text import TextConfig, TextTransformer
from vlp.losses.contrastive import CONTRASTIVE_LOSSES, ContrastiveLoss, InfoNCE
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import (
    OBJECTIVES,
    Architecture,
    Batch,
    Objective,
    ObjectiveConfig,
    Pooling,
    Step,
    Vocabulary,
)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ObjectiveConfig):
    """Defaults are CLIP ViT-B."""

    name: Literal["contrastive"] = "contrastive"
    paper: ClassVar[str] = "2103.00020"
    embed_dim: Annotated[int, AtLeast(1)] = 512
    """Width of the space that images and captions share."""
    loss: Annotated[ContrastiveLoss, ByName(CONTRASTIVE_LOSSES)] = InfoNCE()
    """What tells matching pairs from all others."""
    text_encoder: TextConfig = field(default_factory=TextConfig)
    """The network that reads the captions."""

    encodes_text: ClassVar[bool] = True
    architecture: ClassVar[Architecture] = "clip"

    @property
    def formula(self) -> str:
        return self.loss.formula

    @property
    def pooling(self) -> Pooling:
        return "class_token"

    def chance_loss(self, batch_size: int) -> float | None:
        return self.loss.chance(batch_size)

    def build(
        self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> "Contrastive":
        return Contrastive(self, image_encoder, mask, vocabulary=vocabulary)


class Contrastive(Objective):
    """Pulls each image towards its own caption and away from the other captions of the global batch."""

    def __init__(
        self,
        config: ContrastiveConfig,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(image_encoder, mask)
        self.config = config
        text = config.text_encoder
        self.text_encoder = TextTransformer(
            text, vocab_size=vocabulary.size, context_length=vocabulary.context_length
        )
        self.image_projection = _projection(image_encoder.width, config.embed_dim)
        self.text_projection = _projection(text.width, config.embed_dim)
        loss: ContrastiveLoss = config.loss
        self.log_logit_scale = nn.Parameter(torch.tensor(-math.log(loss.initial_temperature)))
        has_bias = loss.initial_bias is not None
        self.logit_bias = nn.Parameter(torch.tensor(loss.initial_bias)) if has_bias else None

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        return {"image_encoder": self.image_encoder, "text_encoder": self.text_encoder}

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """Unit-length embeddings of the masked images and of the captions: (B, E) each."""
        image_embeddings = self.project(self.image_encoder(batch.images, slots)[:, 0])
        return image_embeddings, self.encode_text(batch.tokens, batch.lengths)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        logit_scale = self.log_logit_scale.exp()
        images, texts = outputs
        loss = self.config.loss(images, texts, logit_scale, self.logit_bias)
        metrics = {"logit_scale": logit_scale.detach()}
        if self.logit_bias is not None:
            metrics["logit_bias"] = self.logit_bias.detach()
        return Step(loss, metrics)

    def after_update(self) -> None:
        with torch.no_grad():
            self.log_logit_scale.clamp_(0, math.log(self.config.loss.max_logit_scale))

    def features(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)[:, 0]

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return F.normalize(self.text_projection(self.text_encoder(tokens, lengths)), dim=-1)

    def project(self, features: Tensor) -> Tensor:
        return F.normalize(self.image_projection(features), dim=-1)


def _projection(width: int, embed_dim: int) -> nn.Linear:
    linear = nn.Linear(width, embed_dim, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    return linear
