"""Images to patches, and a choice among them."""

import torch
from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, N, P), patches row by row, pixels of a patch row by row, channels last."""
    B, C, H, W = images.shape
    x = images.reshape(B, C, H // patch_size, patch_size, W // patch_size, patch_size)
    return torch.einsum("bchpwq->bhwpqc", x).reshape(B, -1, patch_size**2 * C)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens by position in each image: (B, N, D), (B, V) -> (B, V, D)."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))
