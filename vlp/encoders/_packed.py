"""Images of which unequal numbers of patches are visible, without the padding between them."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor

MULTIPLE = 64
"""Rows have lengths of which there are few: oneDNN prepares its products anew for each."""


class PackedAttention(Attention):
    """Self-attention that also takes the real tokens of a padded batch in one row, image after image.

    All that works on each token by itself then does nothing for padding: the norms, the MLP and the linear
    layers of the attention. Only its products are those of the padded batch.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend within each image.

        Args:
            x: (B, S, D); or (1, T, D), as `pack` makes them.
            attn_mask: (B, 1, 1, S), True for real tokens.
        """
        if attn_mask is None or x.shape[:2] == (len(attn_mask), attn_mask.shape[3]):
            return super().forward(x, attn_mask, is_causal)
        is_real = attn_mask[:, 0, 0]
        padded = unpack(self.qkv(x), is_real).unflatten(2, (3, self.num_heads, -1))
        query, key, value = padded.permute(2, 0, 3, 1, 4)
        states = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.proj(pack(states.transpose(1, 2).flatten(2), is_real))


def pack(tokens: Tensor, is_real: Tensor) -> Tensor:
    """The real tokens in one row, and a few zeros after them: (B, S, D), (B, S) bool -> (1, T, D)."""
    positions = is_real.flatten().nonzero()[:, 0]
    packed = _Gather.apply(tokens.flatten(0, 1), positions)
    return F.pad(packed, (0, 0, 0, -len(positions) % MULTIPLE))[None]


def unpack(tokens: Tensor, is_real: Tensor) -> Tensor:
    """Back to their images, with zeros for padding: (1, T, D), (B, S) bool -> (B, S, D)."""
    positions = is_real.flatten().nonzero()[:, 0]
    padded = _Scatter.apply(tokens[0, : len(positions)], positions, is_real.numel())
    return padded.unflatten(0, is_real.shape)


class _Gather(torch.autograd.Function):
    """Some rows, each once: its gradient needs no sums, which are slow."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(positions)
        ctx.num_rows = len(rows)
        return rows.index_select(0, positions)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (positions,) = ctx.saved_tensors
        return _Scatter.apply(gradient, positions, ctx.num_rows), None


class _Scatter(torch.autograd.Function):
    """Rows put among zeros: the inverse of `_Gather`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor, num_rows: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(positions)
        return rows.new_zeros(num_rows, rows.shape[1]).index_copy_(0, positions, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (positions,) = ctx.saved_tensors
        return _Gather.apply(gradient, positions), None, None
