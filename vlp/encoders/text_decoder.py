"""The decoder that says what an image encoder sees (Cap and CapPa, arXiv:2306.07915, section 3)."""

from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.encoders.cross_attention import MLP, CrossAttention
from vlp.encoders.text import TextConfig, with_positions


class TextDecoder(nn.Module):
    """A causal transformer over the tokens of a caption that looks at the states of its image.

    Parallel captions are read as if all their tokens were hidden, so that each has to be told from the image
    alone; then a token looks at the places of all others, too.
    """

    shared_by_blocks: ClassVar[Collection[str]] = ()

    def __init__(
        self, config: TextConfig, *, memory_width: int, vocab_size: int, context_length: int
    ) -> None:
        super().__init__()
        width = config.width
        self.token_embed = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.empty(context_length, width))
        self.hidden_token = nn.Parameter(torch.empty(width))
        self.to_memory = nn.Linear(memory_width, width)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        for parameter in (self.token_embed.weight, self.positions, self.hidden_token):
            nn.init.normal_(parameter, std=0.02)

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of such a decoder, perhaps for another context length, as this one has them."""
        return with_positions(weights, self.positions)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        memory: Tensor,
        *,
        attends: Tensor | None = None,
        is_parallel: Tensor | None = None,
    ) -> Tensor:
        """States from which the token after each is told: (B, T), (B,), (B, S, M) -> (B, T, D).

        Args:
            attends: (B, 1, 1, S) bool, True for states of the image that may be looked at; None for all.
            is_parallel: (B,) bool, whose captions are hidden as a whole; None for none.
        """
        T = tokens.shape[1]
        x = self.token_embed(tokens)
        sees = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()[None]
        if is_parallel is not None:
            x = torch.where(is_parallel[:, None, None], self.hidden_token.to(x.dtype), x)
            is_real = torch.arange(T, device=x.device) < lengths[:, None]
            sees = sees | (is_parallel[:, None] & is_real)[:, None]
        x = x + self.positions[:T]
        memory = self.to_memory(memory)
        for block in self.blocks:
            x = block(x, memory, sees[:, None], attends)
        return self.norm(x)


class DecoderBlock(nn.Module):
    """Attention among the tokens, attention to the image, and an MLP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.cross = CrossAttention(width, config.num_heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = MLP(width, config.activation)

    def forward(self, x: Tensor, memory: Tensor, sees: Tensor, attends: Tensor | None) -> Tensor:
        """(B, T, D), (B, S, D) -> (B, T, D).

        Args:
            sees: (B or 1, 1, T, T) bool, True where a token, in its row, looks at another.
            attends: as of `CrossAttention`.
        """
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        among = F.scaled_dot_product_attention(query, key, value, attn_mask=sees)
        x = x + self.proj(among.transpose(1, 2).flatten(2))
        x = x + self.cross(self.norm2(x), memory, attends)
        return x + self.mlp(self.norm3(x))
