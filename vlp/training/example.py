"""A model and a batch without content, to count what a step of theirs takes."""

from typing import NamedTuple

import torch

from vlp.core.batch import Batch
from vlp.encoders import ImageEncoderConfig
from vlp.masking import MaskStrategy, Slots
from vlp.objectives import Objective, ObjectiveConfig, Vocabulary
from vlp.text_masking import TextMask
from vlp.text_masking.none import NoTextMask

WHOLE = NoTextMask()


class Example(NamedTuple):
    """What a step of one worker works on."""

    model: Objective
    batch: Batch
    """Its captions are of full length, or of what a text mask leaves of that."""
    slots: Slots


def example_of(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    *,
    vocabulary: Vocabulary,
    batch_size: int,
    text_mask: TextMask = WHOLE,
) -> Example:
    """Made on the default device: on `meta` nothing is computed, and nothing takes memory."""
    B, size, V = batch_size, image_encoder.image_size, mask.num_visible(image_encoder.num_patches)
    model = objective.build(image_encoder.build(), mask, vocabulary=vocabulary).eval()
    tokens = torch.zeros(B, text_mask.tokens_left(vocabulary.context_length), dtype=torch.int64)
    batch = Batch(torch.zeros(B, 3, size, size), tokens, torch.ones(B, dtype=torch.int64))
    is_padding = None if mask.is_exact else torch.zeros(B, V, dtype=torch.bool)
    return Example(model, batch, Slots(torch.zeros(B, V, dtype=torch.int64), is_padding))
