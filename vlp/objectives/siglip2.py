"""SigLIP 2 (arXiv:2502.14786, section 2.1): the sigmoid loss, and a decoder that says the captions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from vlp.core.config import AtLeast, Within
from vlp.core.registry import ByName
from vlp.encoders import ImageEncoder
from vlp.encoders.blocks import Encoder
from vlp.encoders.text import TextConfig
from vlp.encoders.text_decoder import TextDecoder
from vlp.losses.contrastive import CONTRASTIVE_LOSSES, ContrastiveLoss, SigmoidLoss
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.captioner import caption_errors, chosen_parallel
from vlp.objectives.contrastive import Contrastive, ContrastiveConfig
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import OBJECTIVES, Architecture, Batch, Step, Vocabulary


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class SigLIP2Config(ContrastiveConfig):
    """Contrastive training, of which the image encoder also has to say the captions."""

    name: Literal["siglip2"] = "siglip2"  # pyright: ignore[reportIncompatibleVariableOverride]
    paper: ClassVar[str] = "2502.14786"
    loss: Annotated[ContrastiveLoss, ByName(CONTRASTIVE_LOSSES)] = SigmoidLoss()
    """What tells matching pairs from all others."""
    decoder: TextConfig = field(default_factory=lambda: TextConfig(depth=6))
    """The network that says the captions."""
    parallel_share: Annotated[float, Within(0, 1)] = 0.5
    """Share of the captions that are told from the image alone, all tokens at once."""
    caption_weight: Annotated[float, AtLeast(0)] = 1.0
    """How much the captions' error weighs beside the contrastive loss."""

    architecture: ClassVar[Architecture] = "other"

    @property
    def formula(self) -> str:
        return f"{self.loss.formula}; and the captioner's, {self.caption_weight:g} times"

    def chance_loss(self, batch_size: int) -> float | None:
        return None

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "SigLIP2":
        return SigLIP2(self, image_encoder, mask, vocabulary=vocabulary)


class SigLIP2(Contrastive):
    """Two towers, and a decoder that looks at the visible patches' states."""

    config: SigLIP2Config

    def __init__(
        self,
        config: SigLIP2Config,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(config, image_encoder, mask, vocabulary=vocabulary)
        self.decoder = TextDecoder(
            config.decoder,
            memory_width=image_encoder.width,
            vocab_size=vocabulary.size,
            context_length=vocabulary.context_length,
        )

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        return {**super().encoders, "decoder": self.decoder}

    @property
    def num_draws(self) -> int:
        return 1

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """Unit-length embeddings, (B, E), of images and captions, and the error of every caption, (B,)."""
        states = self.image_encoder(batch.images, slots)
        is_parallel = chosen_parallel(self.draws, self.config.parallel_share, batch)
        errors = caption_errors(self.decoder, batch, states, slots, is_parallel)
        return self.project(states[:, 0]), self.encode_text(batch.tokens, batch.lengths), errors

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        *embeddings, errors = outputs
        contrastive, metrics = super().loss(tuple(embeddings), batch, slots)
        captions = errors.mean()
        both = {"contrastive_loss": contrastive.detach(), "caption_loss": captions.detach()}
        return Step(contrastive + self.config.caption_weight * captions, metrics | both)
