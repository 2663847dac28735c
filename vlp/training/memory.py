"""What a training step needs of memory, counted without computing it."""

from typing import NamedTuple

import torch
from torch import Tensor

from vlp.encoders import ImageEncoderConfig
from vlp.masking import MaskStrategy
from vlp.objectives import ObjectiveConfig, Vocabulary
from vlp.text_masking import TextMask
from vlp.training.example import Example, example_of

COPIES = 4
"""Of every weight: itself, its gradient, and the two averages of AdamW."""


class StepMemory(NamedTuple):
    """Bytes that a training step holds at once."""

    weights: int
    """Of the weights, their gradients, and the two averages of AdamW."""
    activations: int
    """Of what the forward pass keeps for the backward pass, in float32."""


def step_memory(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    *,
    text_mask: TextMask,
    vocabulary: Vocabulary,
    batch_size: int,
) -> StepMemory:
    """Memory of one step of one worker; what single operations need for a moment comes on top."""
    with torch.device("meta"):
        example = example_of(
            objective,
            image_encoder,
            mask,
            text_mask=text_mask,
            vocabulary=vocabulary,
            batch_size=batch_size,
        )
        weights = sum(weight.nbytes for weight in example.model.parameters())
        return StepMemory(COPIES * weights, kept_bytes(example))


def kept_bytes(example: Example) -> int:
    """Bytes of the tensors that a forward pass keeps beside the weights; each storage counts once."""
    model, batch, slots = example
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), tensor)
        return tensor

    weights = {_storage(weight) for weight in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step = model.loss(model.encode(batch, slots), batch, slots)
    del step  # not before: a freed storage may lend its place to the next one
    return sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in weights)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
