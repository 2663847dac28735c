"""What a training objective is: a model together with the loss it is trained on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Generator, Tensor, nn

from vlp.batch import Batch
from vlp.config import StrictConfig
from vlp.encoders.vit import VisionTransformer
from vlp.masking import MaskStrategy, Slots, visible_slots
from vlp.masking.strategy import uniform_noise
from vlp.registry import Registry

OBJECTIVES = Registry()


class Step(NamedTuple):
    """What every objective returns."""

    loss: Tensor
    """Scalar to minimize; its mean over the workers is the loss of the global batch."""
    metrics: dict[str, Tensor]
    """Detached scalars to log."""


class Vocabulary(NamedTuple):
    """What an objective knows about the captions before training."""

    size: int
    """Number of token ids."""
    context_length: int
    """Tokens of a caption at most, the special ones included."""
    special_tokens: tuple[int, ...] = ()
    """Ids that are no words, such as the start and the end of a text."""
    document_frequency: Tensor | None = None
    """(size,) int64, captions that contain each token; None where it was not counted."""
    num_documents: int = 0
    """Captions counted."""


class Objective(nn.Module, ABC):
    """Owns every trained weight, so wrapping it in DDP wraps the model."""

    image_encoder: VisionTransformer
    mask: MaskStrategy

    @abstractmethod
    def forward(self, batch: Batch, *, progress: float, generator: Generator | None) -> Step:
        """The loss of one batch.

        Args:
            progress: share of the training that is done, in [0, 1); drives every schedule.
            generator: source of the masks' randomness, seeded alike on every worker.
        """

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What frozen-feature evaluations read, of whole images: (B, 3, H, W) -> (B, D)."""

    def after_update(self) -> None:
        """Called after each optimizer step; for constraints such as a clamped logit scale."""

    def choose_visible(self, images: Tensor, *, progress: float, generator: Generator | None) -> Slots:
        """The patches of each image that the encoder sees in this step: (B, 3, H, W) -> V slots."""
        inputs = self.image_encoder.mask_inputs(images)
        masked = self.mask(inputs, progress=progress, generator=generator)
        noise = None if self.mask.is_exact else uniform_noise(inputs, generator)
        return visible_slots(masked, self.mask.num_visible(inputs.num_patches), noise)

    def mask_ratio(self, slots: Slots) -> Tensor:
        """Share of the patches that the encoder did not see, after the cut: ()."""
        visible = slots.keep_indices.new_tensor(slots.keep_indices.numel())
        if slots.is_padding is not None:
            visible = visible - slots.is_padding.sum()
        return 1 - visible / (len(slots.keep_indices) * self.image_encoder.config.num_patches)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(ABC, StrictConfig):
    """The settings of an objective; `build` makes its model."""

    name: str

    @abstractmethod
    def build(
        self, image_encoder: VisionTransformer, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> Objective: ...
