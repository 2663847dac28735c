"""Losses that tell matching pairs of images and captions from all others of the global batch."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.core.config import AtLeast, StrictConfig, Within
from vlp.core.distributed import all_gather, rank
from vlp.core.registry import Registry
from vlp.losses.in_parts import by_rows_of_product

CONTRASTIVE_LOSSES = Registry()


@dataclass(frozen=True, kw_only=True)
class ContrastiveLoss(ABC, StrictConfig):
    """What is minimized; its mean over the workers is the loss of the global batch."""

    name: str
    """Which loss it is."""
    formula: ClassVar[str] = ""
    """The loss, in plain text."""
    initial_temperature: Annotated[float, Within(0, 1, "(]")]
    """One over the first logit scale, which is trained."""
    max_logit_scale: Annotated[float, AtLeast(1)] = 100.0
    """The logit scale is clamped to [1, max_logit_scale] after each step."""
    initial_bias: ClassVar[float | None] = None
    """Trained number added to every logit; None where the loss has none."""

    def chance(self, batch_size: int) -> float | None:
        """The loss of guessing among so many pairs; None where it depends on more."""
        return None

    @abstractmethod
    def __call__(
        self, images: Tensor, texts: Tensor, logit_scale: Tensor, logit_bias: Tensor | None
    ) -> Tensor:
        """The loss: (B, E), (B, E), (), () -> ()."""


@CONTRASTIVE_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class InfoNCE(ContrastiveLoss):
    """CLIP's softmax over the candidates of each image, and of each caption (arXiv:2103.00020)."""

    name: Literal["infonce"] = "infonce"
    formula: ClassVar[str] = "-log softmax(s x_i t_j) at j = i, mean of both ways"
    initial_temperature: Annotated[float, Within(0, 1, "(]")] = 0.07

    def chance(self, batch_size: int) -> float:
        return math.log(batch_size)

    def __call__(
        self, images: Tensor, texts: Tensor, logit_scale: Tensor, logit_bias: Tensor | None
    ) -> Tensor:
        return infonce_loss(images, texts, logit_scale)


@CONTRASTIVE_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class SigmoidLoss(ContrastiveLoss):
    """SigLIP's yes or no to each pair by itself (arXiv:2303.15343)."""

    name: Literal["sigmoid"] = "sigmoid"
    formula: ClassVar[str] = "-log sigmoid(z_ij (s x_i t_j + b)), z = 1 at i = j, else -1"
    initial_temperature: Annotated[float, Within(0, 1, "(]")] = 0.1
    initial_bias: float = -10.0  # pyright: ignore[reportIncompatibleVariableOverride]
    """Starts the many pairs that do not match near their answer; trained."""

    def __call__(
        self, images: Tensor, texts: Tensor, logit_scale: Tensor, logit_bias: Tensor | None
    ) -> Tensor:
        assert logit_bias is not None
        return sigmoid_loss(images, texts, logit_scale, logit_bias)


def infonce_loss(image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the global batch of matching pairs: (B, E), (B, E), () -> ().

    Every worker scores its own rows against all workers' candidates, and the mean over the workers is the
    loss, and the gradient, of one worker with the whole batch. Of the (B, global B) logits one part exists at
    a time. Computed in float32 whatever the autocast: bf16 would round a logit of 100 to the nearest half.
    """
    image_embeddings, text_embeddings = image_embeddings.float(), text_embeddings.float()
    targets = _own_pairs(image_embeddings)
    losses = [
        by_rows_of_product(cross_entropies, logit_scale * own, all_gather(others), targets)
        for own, others in ((image_embeddings, text_embeddings), (text_embeddings, image_embeddings))
    ]
    return (losses[0].mean() + losses[1].mean()) / 2


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each row to its class: (b, K), (b,) -> (b,)."""
    return F.cross_entropy(logits, targets, reduction="none")


def sigmoid_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor, logit_bias: Tensor
) -> Tensor:
    """Binary cross-entropy of every pair, summed over captions: (B, E), (B, E), (), () -> ().

    Algorithm 1 of SigLIP. Every worker scores its own images against all workers' captions, in float32
    whatever the autocast; of the logits one part exists at a time.
    """
    own, all_texts = image_embeddings.float(), all_gather(text_embeddings.float())

    def of_images(products: Tensor, targets: Tensor) -> Tensor:
        logits = products + logit_bias
        return F.softplus(logits).sum(dim=1) - logits.gather(1, targets[:, None])[:, 0]

    return by_rows_of_product(of_images, logit_scale * own, all_texts, _own_pairs(own)).mean()


def _own_pairs(rows: Tensor) -> Tensor:
    """Where this worker's rows are in the global batch: (B, E) -> (B,)."""
    return torch.arange(rank() * len(rows), (rank() + 1) * len(rows), device=rows.device)
