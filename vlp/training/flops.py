"""What a training step computes, counted without computing it."""

from functools import lru_cache

import torch

from vlp.encoders import ImageEncoderConfig
from vlp.losses.in_parts import in_one_part
from vlp.masking import MaskStrategy
from vlp.objectives import ObjectiveConfig, Vocabulary
from vlp.text_masking import TextMask
from vlp.training.example import example_of


def step_flops(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    *,
    text_mask: TextMask,
    vocabulary: Vocabulary,
    batch_size: int,
) -> int:
    """Floating-point operations of the matrix products of one step, two for each multiplication.

    Forward and backward pass on captions as long as they get, and what the mask looks at where weights
    compute it. What is computed twice to spare memory counts once.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which takes long

    with torch.device("meta"), in_one_part(), FlopCounterMode(display=False) as counter:
        model, batch, slots = example_of(
            objective,
            image_encoder,
            mask,
            text_mask=text_mask,
            vocabulary=vocabulary,
            batch_size=batch_size,
        )
        for view in mask.views:
            getattr(model.mask_inputs(batch.images), view)
        model.loss(model.encode(batch, slots), batch, slots).loss.backward()
    return counter.get_total_flops()


@lru_cache(maxsize=8)  # methods that are compared have one encoder
def image_flops(image_encoder: ImageEncoderConfig) -> int:
    """Floating-point operations of the matrix products by which a whole image becomes states."""
    from torch.utils.flop_counter import FlopCounterMode

    size = image_encoder.image_size
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        image_encoder.build().eval()(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()
