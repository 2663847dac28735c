"""The causal text transformer of CLIP (arXiv:2103.00020), on timm's blocks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from vlp.core.config import AtLeast, StrictConfig
from vlp.encoders.blocks import Activation, activation_layer


@dataclass(frozen=True, kw_only=True)
class TextConfig(StrictConfig):
    """Defaults are the text tower of CLIP ViT-B."""

    width: Annotated[int, AtLeast(1)] = 512
    """D, numbers per token."""
    depth: Annotated[int, AtLeast(1)] = 12
    """Blocks."""
    num_heads: Annotated[int, AtLeast(1)] = 8
    """Heads of attention per block; they share the width."""
    activation: Activation = "gelu"
    """Between the two layers of each block's MLP."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")


class TextTransformer(nn.Module):
    """Reads as many tokens as the longest caption of the batch has; causal attention makes that exact."""

    shared_by_blocks: ClassVar[Collection[str]] = ()

    def __init__(self, config: TextConfig, *, vocab_size: int, context_length: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.token_embed = nn.Embedding(vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(context_length, config.width))
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.num_heads,
                qkv_bias=True,
                norm_layer=nn.LayerNorm,
                act_layer=activation_layer(config.activation),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self._init_weights(config)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The state at each caption's last token: (B, T), (B,) -> (B, D)."""
        x = self.token_embed(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, is_causal=True)
        return self.norm(x)[torch.arange(len(x), device=x.device), lengths - 1]

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of such an encoder, perhaps for another context length, as this one has them."""
        return with_positions(weights, self.positions)

    @torch.no_grad()
    def _init_weights(self, config: TextConfig) -> None:
        """The standard deviations of CLIP's release."""
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        residual_std = config.width**-0.5 * (2 * config.depth) ** -0.5
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("qkv.weight"):
                nn.init.normal_(parameter, std=config.width**-0.5)
            elif name.endswith("fc1.weight"):
                nn.init.normal_(parameter, std=(2 * config.width) ** -0.5)
            elif name.endswith(("proj.weight", "fc2.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def with_positions(weights: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """Weights whose positions are as many as a model's: cut, or followed by those that it has.

    The first ones stay as they are, as a caption's words stay where they were.

    Args:
        positions: the model's, (context_length, D).
    """
    given = weights.get("positions")
    if given is None or given.shape[1:] != positions.shape[1:]:
        return dict(weights)
    more = positions.detach()[len(given) :].to(given)
    return dict(weights) | {"positions": torch.cat([given[: len(positions)], more])}
