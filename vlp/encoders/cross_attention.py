"""Attention to the states of another network, as decoders have it (arXiv:1706.03762, section 3.2.3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from vlp.encoders.blocks import Activation, activation_layer
from vlp.masking import Slots


class CrossAttention(nn.Module):
    """Queries of one sequence look at the states of another."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, attends: Tensor | None = None) -> Tensor:
        """(B, T, D), (B, S, D) -> (B, T, D).

        Args:
            attends: (B, 1, 1, S) bool, True for states that may be looked at; None for all.
        """
        query = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        both = self.kv(memory).unflatten(2, (2, self.num_heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)  # (B, heads, S, D / heads) each
        states = F.scaled_dot_product_attention(query, key, value, attn_mask=attends)
        return self.proj(states.transpose(1, 2).flatten(2))


def attended(slots: Slots) -> Tensor | None:
    """The states of an image encoder that are not padding, for `CrossAttention`: (B, 1, 1, 1 + V)."""
    if slots.is_padding is None:
        return None
    is_real = F.pad(~slots.is_padding, (1, 0), value=True)  # the class token is
    return is_real[:, None, None]


class MLP(nn.Sequential):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation = "gelu") -> None:
        super().__init__(
            nn.Linear(width, 4 * width), activation_layer(activation)(), nn.Linear(4 * width, width)
        )


class CrossBlock(nn.Module):
    """A block of queries that see a memory and not each other (CrossMAE, arXiv:2401.14391)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, memory: Tensor, attends: Tensor | None = None) -> Tensor:
        """(B, T, D), (B, S, D) -> (B, T, D), arguments as of `CrossAttention`."""
        x = x + self.attn(self.norm1(x), memory, attends)
        return x + self.mlp(self.norm2(x))
