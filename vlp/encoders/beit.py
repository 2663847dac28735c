"""BEiT's vision transformer (arXiv:2106.08254), as SimMIM has it (arXiv:2111.09886), on timm's modules."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import AtLeast, Within
from vlp.encoders.drop_path import replace_drop_paths
from vlp.encoders.image_encoder import (
    IMAGE_ENCODERS,
    ImageEncoder,
    ImageEncoderConfig,
    Names,
    TimmModel,
    Weights,
)
from vlp.encoders.patches import patchify, take
from vlp.encoders.relative_positions import resized_table
from vlp.masking import MaskInputs, Slots

TABLE = "relative_position_bias_table"
SHARED_TABLE = f"relative_positions.{TABLE}"


@IMAGE_ENCODERS.register
@dataclass(frozen=True, kw_only=True)
class BEiTConfig(ImageEncoderConfig):
    """Defaults are ViT-B/16 in SimMIM."""

    name: Literal["beit"] = "beit"
    patch_size: Annotated[int, AtLeast(1)] = 16  # pyright: ignore[reportIncompatibleMethodOverride]
    """Side of a patch, in pixels."""
    width: Annotated[int, AtLeast(1)] = 768
    """D, numbers per token."""
    depth: Annotated[int, AtLeast(1)] = 12
    """Blocks."""
    num_heads: Annotated[int, AtLeast(1)] = 12
    """Heads of attention per block; they share the width."""
    layer_scale: float = 0.1
    """What the output of each attention and each MLP is multiplied by at first."""
    drop_path: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of samples that skip the last block in training; earlier blocks are skipped less often."""
    final_norm: bool = True  # pyright: ignore[reportIncompatibleMethodOverride]
    """Normalize the states after the last block, as SimMIM's release does; its fine-tuning normalizes their
    mean instead, and linear probes may want none."""
    relative_positions: Literal["shared", "per_block"] = "shared"
    """Whether all blocks have one table, or each its own, as in SimMIM's fine-tuning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")

    @property
    def can_drop_patches(self) -> bool:
        return self.relative_positions == "shared"  # timm's blocks look theirs up for whole images

    @property
    def stride(self) -> int:
        return self.patch_size

    def as_timm(self) -> TimmModel:
        if not self.final_norm:
            raise ValueError("image_encoder.final_norm is false, and timm's BEiT ends with a norm")
        sizes = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "init_values": self.layer_scale,
            "use_rel_pos_bias": self.relative_positions == "per_block",
            "use_shared_rel_pos_bias": self.relative_positions == "shared",
            "use_fc_norm": False,
        }
        return TimmModel("beit_base_patch16_224", sizes)

    def build(self) -> "BEiT":
        return BEiT(self)


class BEiT(ImageEncoder):
    """A class token, LayerScale, no key bias, and tables of relative positions."""

    timm_names: ClassVar[Names] = (
        ("cls_token", "class_token"),
        ("rel_pos_bias.", "relative_positions."),
    )
    shared_by_blocks: ClassVar[Collection[str]] = (SHARED_TABLE,)

    def __init__(self, config: BEiTConfig) -> None:
        from timm.layers.patch_embed import PatchEmbed
        from timm.models.beit import Block, RelativePositionBias

        super().__init__()
        self.config = config
        self.width = self.token_width = config.width
        norm = partial(nn.LayerNorm, eps=1e-6)
        side = config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.image_size, config.patch_size, embed_dim=config.width)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        is_shared = config.relative_positions == "shared"
        self.relative_positions = RelativePositionBias((side, side), config.num_heads) if is_shared else None
        drop_rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.num_heads,
                qkv_bias=True,
                init_values=config.layer_scale,
                drop_path=drop_rate,
                norm_layer=norm,  # pyright: ignore[reportArgumentType]
                window_size=None if is_shared else (side, side),
            )
            for drop_rate in drop_rates
        )
        replace_drop_paths(self.blocks)
        self.norm = norm(config.width) if config.final_norm else nn.Identity()
        self._init_weights()

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        size = (len(images), self.config.num_patches)
        return MaskInputs(
            size,
            images.device,
            patches=lambda: patchify(images, self.config.patch_size),
            tokens=lambda: self.patch_embed(images).detach(),
        )

    def adapted(self, weights: Weights) -> dict[str, Tensor]:
        """A table of all blocks becomes one of each."""
        adapted, own = super().adapted(weights), dict(self.named_parameters())
        if SHARED_TABLE in adapted and SHARED_TABLE not in own:
            shared = adapted.pop(SHARED_TABLE)
            adapted |= {name: shared for name in own if name.endswith(TABLE)}
        tables = [name for name in adapted if name.endswith(TABLE) and name in own]
        return adapted | {name: resized_table(adapted[name], num_entries=len(own[name])) for name in tables}

    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        embedded = self.patch_embed(images)
        tokens = torch.where(masked[:, :, None], mask_token.to(embedded.dtype), embedded)
        return self._encode(tokens, self._shared_bias())[:, 1:]

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        tokens = self.patch_embed(images)
        if slots is None or self.relative_positions is None:
            if slots is not None and slots.keep_indices.shape[1] < self.config.num_patches:
                raise ValueError("a BEiT with tables per block needs all patches; none can be left out")
            return self._encode(tokens, self._shared_bias())
        bias = self._bias_between(slots, self.relative_positions())
        return self._encode(take(tokens, slots.keep_indices), bias)

    def _shared_bias(self) -> Tensor | None:
        """(1, heads, 1 + N, 1 + N), or None where each block has its own."""
        return None if self.relative_positions is None else self.relative_positions()[None]

    def _encode(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """(B, V, D) tokens, (B or 1, heads, 1 + V, 1 + V) bias -> (B, 1 + V, D)."""
        x = torch.cat([self.class_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            x = block(x, shared_rel_pos_bias=None if bias is None else bias.to(x.dtype))
        return self.norm(x)

    def _bias_between(self, slots: Slots, bias: Tensor) -> Tensor:
        """Relative positions of the visible patches, padding out of reach: (B, heads, 1 + V, 1 + V).

        Args:
            bias: (heads, 1 + N, 1 + N).
        """
        places = F.pad(slots.keep_indices + 1, (1, 0))  # the class token is place 0
        between = bias.permute(1, 2, 0)  # (1 + N, 1 + N, heads)
        found = between[places[:, :, None], places[:, None, :]].permute(0, 3, 1, 2)
        if slots.is_padding is None:
            return found
        return found.masked_fill(F.pad(slots.is_padding, (1, 0))[:, None, None, :], -torch.inf)

    @torch.no_grad()
    def _init_weights(self) -> None:
        """As the release: deeper blocks add less to the residual."""
        nn.init.trunc_normal_(self.class_token, std=0.02, a=-0.02, b=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.02, b=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        blocks: Any = self.blocks
        for number, block in enumerate(blocks, 1):
            block.attn.proj.weight.div_(math.sqrt(2 * number))
            block.mlp.fc2.weight.div_(math.sqrt(2 * number))
