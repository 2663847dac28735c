"""What a training step computes, counted without computing it."""

import torch

from vlp.core.batch import Batch
from vlp.encoders import ImageEncoderConfig
from vlp.masking import MaskStrategy, Slots
from vlp.objectives import ObjectiveConfig, Vocabulary


def step_flops(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    *,
    vocabulary: Vocabulary,
    batch_size: int,
) -> int:
    """Floating-point operations of the matrix products of one step, two for each multiplication.

    Forward and backward pass on captions of full length, and what the mask looks at where weights compute it.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which takes long

    B, size, N = batch_size, image_encoder.image_size, image_encoder.num_patches
    V, T = mask.num_visible(N), vocabulary.context_length
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = objective.build(image_encoder.build(), mask, vocabulary=vocabulary).eval()
        tokens, lengths = torch.zeros(B, T, dtype=torch.int64), torch.ones(B, dtype=torch.int64)
        batch = Batch(torch.zeros(B, 3, size, size), tokens, lengths)
        is_padding = None if mask.is_exact else torch.zeros(B, V, dtype=torch.bool)
        slots = Slots(torch.zeros(B, V, dtype=torch.int64), is_padding)
        for view in mask.views:
            getattr(model.mask_inputs(batch.images), view)
        model.loss(model.encode(batch, slots), batch, slots).loss.backward()
    return counter.get_total_flops()
