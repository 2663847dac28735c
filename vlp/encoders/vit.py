"""The vision transformer (arXiv:2010.11929), on timm's modules."""

from dataclasses import dataclass
from typing import Literal

import timm.models.vision_transformer as timm_vit
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.config import StrictConfig
from vlp.encoders.patches import patchify, take
from vlp.masking import MaskInputs, Slots


@dataclass(frozen=True, kw_only=True)
class ViTConfig(StrictConfig):
    """Defaults are ViT-B/16."""

    name: Literal["vit"] = "vit"
    image_size: int = 224
    """Side of the square input, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels."""
    width: int = 768
    depth: int = 12
    num_heads: int = 12

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")

    @property
    def num_patches(self) -> int:
        """N."""
        return (self.image_size // self.patch_size) ** 2


class VisionTransformer(nn.Module):
    """ViT with a class token, learned positions and a norm before the blocks, as in CLIP.

    Hidden patches never enter the blocks; padding slots are invisible to all others.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        trunk = timm_vit.VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            num_classes=0,
            global_pool="",
            pre_norm=True,
            norm_layer=nn.LayerNorm,
        )
        assert trunk.pos_embed is not None
        assert trunk.cls_token is not None
        self.patch_embed = trunk.patch_embed
        self.class_token, self.positions = trunk.cls_token, trunk.pos_embed
        self.norm_pre, self.blocks, self.norm = trunk.norm_pre, trunk.blocks, trunk.norm

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        """The view of (B, 3, H, W) images that masking strategies work on."""
        size = (len(images), self.config.num_patches)
        return MaskInputs(size, images.device, patches=lambda: patchify(images, self.config.patch_size))

    def embed(self, images: Tensor) -> Tensor:
        """Patch embeddings with their positions: (B, 3, H, W) -> (B, N, D)."""
        return self.patch_embed(images) + self.positions[:, 1:]

    def encode(self, tokens: Tensor, slots: Slots | None = None) -> Tensor:
        """Run the blocks over the visible tokens.

        Args:
            tokens: (B, N, D) embedded patches, with positions.
            slots: which of them are visible; None for all.

        Returns:
            (B, 1 + V, D): the class token, then the slots.
        """
        attends = None
        if slots is not None:
            tokens = take(tokens, slots.keep_indices)
            if slots.is_padding is not None:
                # (B, 1, 1, 1 + V): no head and no query attends to padding; the class token is real.
                attends = F.pad(~slots.is_padding, (1, 0), value=True)[:, None, None, :]
        class_token = self.class_token + self.positions[:, :1]
        x = torch.cat([class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x, attn_mask=attends)
        return self.norm(x)

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + V, D): the class token, then the visible patches."""
        return self.encode(self.embed(images), slots)
