"""CLIP (arXiv:2103.00020). With a mask it is FLIP (random) or cluster masking (cluster)."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vlp.distributed import all_gather, rank
from vlp.encoders.text import TextConfig, TextTransformer
from vlp.encoders.vit import VisionTransformer
from vlp.masking import MaskStrategy
from vlp.objectives.objective import OBJECTIVES, Batch, Objective, ObjectiveConfig, Step, Vocabulary


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ObjectiveConfig):
    """Defaults are CLIP ViT-B."""

    name: Literal["contrastive"] = "contrastive"
    embed_dim: int = 512
    """Width of the space that images and captions share."""
    initial_temperature: float = 0.07
    max_logit_scale: float = 100.0
    """The logit scale is clamped to [1, max_logit_scale] after each step."""
    text_encoder: TextConfig = field(default_factory=TextConfig)

    def build(
        self, image_encoder: VisionTransformer, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> "Contrastive":
        return Contrastive(self, image_encoder, mask, vocabulary=vocabulary)


class Contrastive(Objective):
    """Pulls each image towards its own caption and away from the other captions of the global batch."""

    def __init__(
        self,
        config: ContrastiveConfig,
        image_encoder: VisionTransformer,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__()
        self.config = config
        self.mask = mask
        self.image_encoder = image_encoder
        text = config.text_encoder
        self.text_encoder = TextTransformer(
            text, vocab_size=vocabulary.size, context_length=vocabulary.context_length
        )
        self.image_projection = _projection(image_encoder.config.width, config.embed_dim)
        self.text_projection = _projection(text.width, config.embed_dim)
        self.log_logit_scale = nn.Parameter(torch.tensor(-math.log(config.initial_temperature)))

    def forward(self, batch: Batch, *, progress: float, generator: Generator | None) -> Step:
        slots = self.choose_visible(batch.images, progress=progress, generator=generator)
        image_embeddings = self._project(self.image_encoder(batch.images, slots))
        text_embeddings = self.encode_text(batch.tokens, batch.lengths)
        logit_scale = self.log_logit_scale.exp()
        loss = contrastive_loss(image_embeddings, text_embeddings, logit_scale)
        return Step(loss, {"logit_scale": logit_scale.detach(), "mask_ratio": self.mask_ratio(slots)})

    def after_update(self) -> None:
        with torch.no_grad():
            self.log_logit_scale.clamp_(0, math.log(self.config.max_logit_scale))

    def features(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)[:, 0]

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit-length embeddings of whole images: (B, 3, H, W) -> (B, E)."""
        return self._project(self.image_encoder(images))

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Unit-length embeddings of captions: (B, T), (B,) -> (B, E)."""
        return F.normalize(self.text_projection(self.text_encoder(tokens, lengths)), dim=-1)

    def _project(self, states: Tensor) -> Tensor:
        return F.normalize(self.image_projection(states[:, 0]), dim=-1)


def contrastive_loss(image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the global batch of matching pairs: (B, E), (B, E), () -> ().

    Every worker scores its own rows against all workers' candidates, so the logits are (B, global B) and
    the mean over the workers is the loss, and the gradient, of one worker with the whole batch. Computed in
    float32 whatever the autocast: bf16 would round a logit of 100 to the nearest half.
    """
    image_embeddings, text_embeddings = image_embeddings.float(), text_embeddings.float()
    all_images, all_texts = all_gather(image_embeddings), all_gather(text_embeddings)
    B = len(image_embeddings)
    targets = torch.arange(rank() * B, (rank() + 1) * B, device=image_embeddings.device)
    with torch.autocast(image_embeddings.device.type, enabled=False):
        image_logits = logit_scale * image_embeddings @ all_texts.T
        text_logits = logit_scale * text_embeddings @ all_images.T
    return (F.cross_entropy(image_logits, targets) + F.cross_entropy(text_logits, targets)) / 2


def _projection(width: int, embed_dim: int) -> nn.Linear:
    linear = nn.Linear(width, embed_dim, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    return linear
