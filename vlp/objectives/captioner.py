"""Cap and CapPa (arXiv:2306.07915): learn to see by saying what is seen; with a mask OpenVision 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from vlp.core.config import Within
from vlp.core.precision import autocast_dtype
from vlp.encoders import ImageEncoder
from vlp.encoders.blocks import Encoder
from vlp.encoders.cross_attention import attended
from vlp.encoders.text import TextConfig
from vlp.encoders.text_decoder import TextDecoder
from vlp.losses.contrastive import cross_entropies
from vlp.losses.in_parts import by_rows_of_product
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import (
    OBJECTIVES,
    Batch,
    Objective,
    ObjectiveConfig,
    Step,
    Vocabulary,
    mean_of_patches,
)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class CaptionerConfig(ObjectiveConfig):
    """Defaults are CapPa's, with a decoder of half the depth of ViT-B."""

    name: Literal["captioner"] = "captioner"
    paper: ClassVar[str] = "2306.07915"
    decoder: TextConfig = field(default_factory=lambda: TextConfig(width=768, depth=6, num_heads=12))
    """The network that says the captions."""
    parallel_share: Annotated[float, Within(0, 1)] = 0.75
    """Share of the captions that are told from the image alone, all tokens at once (CapPa); 0 is Cap."""

    @property
    def formula(self) -> str:
        return "mean over the tokens of -log p(t_i | image, t_1 .. t_i-1), or p(t_i | image)"

    def build(
        self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> "Captioner":
        return Captioner(self, image_encoder, mask, vocabulary=vocabulary)


class Captioner(Objective):
    """An image encoder, and a decoder that says the caption of an image from its visible patches."""

    def __init__(
        self,
        config: CaptionerConfig,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(image_encoder, mask)
        self.config = config
        self.decoder = TextDecoder(
            config.decoder,
            memory_width=image_encoder.width,
            vocab_size=vocabulary.size,
            context_length=vocabulary.context_length,
        )

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        return {"image_encoder": self.image_encoder, "decoder": self.decoder}

    @property
    def num_draws(self) -> int:
        return 1

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """The error of every caption: (B,)."""
        states = self.image_encoder(batch.images, slots)
        is_parallel = chosen_parallel(self.draws, self.config.parallel_share, batch)
        return (caption_errors(self.decoder, batch, states, slots, is_parallel),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (errors,) = outputs
        return Step(errors.mean(), {})

    def features(self, images: Tensor) -> Tensor:
        return mean_of_patches(self.image_encoder(images), None)


def chosen_parallel(draws: Tensor | None, share: float, batch: Batch) -> Tensor:
    """Which captions are hidden as a whole, by the first number drawn for each, if any are: -> (B,) bool."""
    if draws is None:
        return torch.zeros_like(batch.lengths, dtype=torch.bool)
    return draws[:, 0] < share


def caption_errors(
    decoder: TextDecoder, batch: Batch, states: Tensor, slots: Slots, is_parallel: Tensor
) -> Tensor:
    """Mean negative log-likelihood of the tokens of each caption, its end included: (B, 1 + V, M) -> (B,)."""
    tokens, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
    said = batch.lengths - 1
    states = decoder(tokens, said, states, attends=attended(slots), is_parallel=is_parallel)
    dtype = autocast_dtype(states.device)
    errors = by_rows_of_product(
        cross_entropies,
        states.flatten(0, 1).to(dtype),
        decoder.token_embed.weight.to(dtype),
        targets.flatten(),
    ).view(targets.shape)
    is_said = torch.arange(targets.shape[1], device=said.device) < said[:, None]
    return (errors * is_said).sum(dim=1) / said
