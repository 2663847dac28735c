"""What the objectives share that rebuild hidden patches."""

import torch
from torch import Tensor

from vlp.distributed import all_sum, world_size
from vlp.masking import Slots


def hidden_patches(slots: Slots, num_patches: int) -> Tensor:
    """What the encoder does not see, patches cut away included: V slots -> (B, N) bool."""
    keep_indices, is_padding = slots
    masked = torch.ones(len(keep_indices), num_patches, dtype=torch.bool, device=keep_indices.device)
    is_hidden = torch.zeros_like(keep_indices, dtype=torch.bool) if is_padding is None else is_padding
    return masked.scatter(1, keep_indices, is_hidden)


def masked_mean(errors: Tensor, masked: Tensor) -> Tensor:
    """Mean error of the hidden patches, or pixels, of the global batch: (B, ...), (B, ...) bool -> ().

    Workers hide different numbers of patches. Each returns its share of the global mean, times the number
    of workers, so that the mean over the workers is the loss, and the gradient, of one worker with the whole
    batch.
    """
    total = all_sum(masked.sum()).clamp(min=1)
    return world_size() * (errors * masked).sum() / total
