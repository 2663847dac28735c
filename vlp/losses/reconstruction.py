"""The error of what is rebuilt, over hidden patches alone."""

import torch
from torch import Tensor

from vlp.core.distributed import all_sum, world_size


def masked_mean(errors: Tensor, weights: Tensor) -> Tensor:
    """Mean error of what is hidden in the global batch: (B, ...), (B, ...) -> ().

    Workers hide different numbers of patches. Each returns its share of the global mean, times the number
    of workers, so that the mean over the workers is the loss, and the gradient, of one worker with the whole
    batch.

    Args:
        weights: True where hidden, or the share that is hidden, in [0, 1].
    """
    total = all_sum(weights.sum(dtype=torch.float64)).clamp(min=1e-6).to(errors.dtype)
    return world_size() * (errors * weights).sum() / total
