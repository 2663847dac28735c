"""Large batches in little memory: encode part after part, and once more in the backward pass."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlp.core.batch import Batch
from vlp.masking import Slots

Outputs = tuple[Tensor, ...]
"""Tensors of a batch with a row, or rows, for each of its pairs."""

Rows = TypeVar("Rows", Batch, Slots)


def encode_in_parts(
    encode: Callable[[Batch, Slots], Outputs], batch: Batch, slots: Slots, num_parts: int
) -> Outputs:
    """The outputs of a whole batch, of which one part's activations at a time are held.

    Only the outputs are kept of each part; the backward pass encodes it again, with the same masks and the
    same dropped paths. So a loss that compares all pairs with each other sees all of them, and its gradient
    is the one of the whole batch, for the price of a second forward pass (GradCache, arXiv:2101.06983).
    """
    if num_parts == 1:
        return encode(batch, slots)
    size = -(-len(batch.images) // num_parts)
    parts = []
    for first in range(0, len(batch.images), size):
        rows = slice(first, first + size)
        part: Outputs = checkpoint(
            encode, take_rows(batch, rows), take_rows(slots, rows), use_reentrant=False
        )  # pyright: ignore[reportAssignmentType]
        parts.append(part)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def take_rows(values: Rows, rows: slice) -> Rows:
    """The same rows of every tensor."""
    return type(values)(*(None if x is None else x[rows] for x in values))  # pyright: ignore[reportArgumentType]
