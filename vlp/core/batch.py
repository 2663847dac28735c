"""What the loader makes and every objective receives."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One worker's rows of a global batch."""

    images: Tensor
    """(B, 3, H, W) float, normalized."""
    tokens: Tensor
    """(B, T) int64 caption tokens, zero-padded; T is the longest caption of the batch."""
    lengths: Tensor
    """(B,) int64 tokens per caption, padding excluded."""
    targets: Tensor | None = None
    """(B, K) float, how much of each class an image shows; None until an objective says so at a step."""
