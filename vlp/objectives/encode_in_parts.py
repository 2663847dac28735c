"""Large batches in little memory: encode part after part, and once more in the backward pass."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlp.core.batch import Batch
from vlp.masking import Slots

Outputs = tuple[Tensor, ...]
"""Tensors of a batch with a row, or rows, for each of its pairs."""

Rows = TypeVar("Rows", Batch, Slots)


class Part(NamedTuple):
    """What is encoded at once: a batch, or some rows of it."""

    batch: Batch
    slots: Slots
    paths: Tensor | None
    """(B, branches) what decides which branches each pair skips; None where it skips none."""
    draws: Tensor | None = None
    """(B, draws) numbers in [0, 1) that the objective asked for; None where it asked for none."""

    def take(self, rows: slice) -> "Part":
        """Some rows of it."""
        paths, draws = (None if x is None else x[rows] for x in (self.paths, self.draws))
        return Part(take_rows(self.batch, rows), take_rows(self.slots, rows), paths, draws)


def encode_in_parts(encode: Callable[[Part], Outputs], whole: Part, num_parts: int) -> Outputs:
    """The outputs of a whole batch, of which one part's activations at a time are held.

    Only the outputs are kept of each part; the backward pass encodes it again, with the same masks and the
    same dropped paths. So a loss that compares all pairs with each other sees all of them, and its gradient
    is the one of the whole batch, for the price of a second forward pass (GradCache, arXiv:2101.06983).
    """
    if num_parts == 1:
        return encode(whole)
    num_pairs = len(whole.batch.images)
    size = -(-num_pairs // num_parts)
    parts = []
    for first in range(0, num_pairs, size):
        part = whole.take(slice(first, first + size))
        outputs: Outputs = checkpoint(encode, part, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
        parts.append(outputs)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def take_rows(values: Rows, rows: slice) -> Rows:
    """The same rows of every tensor."""
    return type(values)(*(None if x is None else x[rows] for x in values))  # pyright: ignore[reportArgumentType]
