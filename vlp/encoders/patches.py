"""Images to patches, and a choice among them."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, N, P), patches row by row, pixels of a patch row by row, channels last."""
    B, C, H, W = images.shape
    x = images.reshape(B, C, H // patch_size, patch_size, W // patch_size, patch_size)
    return torch.einsum("bchpwq->bhwpqc", x).reshape(B, -1, patch_size**2 * C)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify` for square images: (B, N, P) -> (B, P / patch_size^2, H, H)."""
    B, N, P = patches.shape
    side, C = isqrt(N), P // patch_size**2
    x = patches.reshape(B, side, side, patch_size, patch_size, C)
    return torch.einsum("bhwpqc->bchpwq", x).reshape(B, C, side * patch_size, side * patch_size)


def sincos_positions(num_patches: int, width: int) -> Tensor:
    """Fixed positions of a class token (zeros) and of a square grid of patches: (1, 1 + N, D).

    The first half of the numbers encodes the column, the second the row; each half is sines, then cosines,
    at frequencies from 1 down to 1 / 10,000 (arXiv:2111.06377, appendix A.1).
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(isqrt(num_patches), dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, D / 2)
    side = len(waves)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    table = torch.cat([columns, rows], dim=1)
    return F.pad(table, (0, 0, 1, 0)).float()[None]


def resized_positions(positions: Tensor, *, like: Tensor, num_patches: int) -> Tensor:
    """Positions of a square grid, for another one; those before the patches stay: (1, R + N, D) twice.

    Those of no square grid are given back as they are.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    num_before, side = like.shape[1] - num_patches, isqrt(num_patches)
    is_square = (
        positions.ndim == 3 and isqrt(positions.shape[1] - num_before) ** 2 + num_before == positions.shape[1]
    )
    if positions.shape == like.shape or not is_square:
        return positions
    return resample_abs_pos_embed(positions, [side, side], num_prefix_tokens=num_before)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens by position in each image: (B, N, D), (B, V) -> (B, V, D)."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))
