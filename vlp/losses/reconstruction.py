"""What the objectives share that rebuild hidden patches."""

import torch
from torch import Tensor

from vlp.core.distributed import all_sum, world_size
from vlp.masking import Slots


def hidden_patches(slots: Slots, num_patches: int) -> Tensor:
    """What the encoder does not see, patches cut away included: V slots -> (B, N) bool."""
    keep_indices, is_padding = slots
    masked = torch.ones(len(keep_indices), num_patches, dtype=torch.bool, device=keep_indices.device)
    is_hidden = torch.zeros_like(keep_indices, dtype=torch.bool) if is_padding is None else is_padding
    return masked.scatter(1, keep_indices, is_hidden)


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
