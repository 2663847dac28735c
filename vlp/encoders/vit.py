"""The vision transformer (arXiv:2010.11929), on timm's modules."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import AtLeast, Within
from vlp.core.precision import without_autocast
from vlp.encoders.blocks import Activation, activation_layer
from vlp.encoders.drop_path import replace_drop_paths
from vlp.encoders.image_encoder import (
    IMAGE_ENCODERS,
    ImageEncoder,
    ImageEncoderConfig,
    Names,
    TimmModel,
    Weights,
)
from vlp.encoders.patches import patchify, resized_positions, sincos_positions, take
from vlp.masking import MaskInputs, Slots
from vlp.masking.strategy import View


@IMAGE_ENCODERS.register
@dataclass(frozen=True, kw_only=True)
class ViTConfig(ImageEncoderConfig):
    """Defaults are CLIP's ViT-B/16; MAE's has `positions: sincos`, `pre_norm: false`, `norm_eps: 1e-6`."""

    name: Literal["vit"] = "vit"
    patch_size: Annotated[int, AtLeast(1)] = 16  # pyright: ignore[reportIncompatibleMethodOverride]
    """Side of a patch, in pixels."""
    width: Annotated[int, AtLeast(1)] = 768
    """D, numbers per token."""
    depth: Annotated[int, AtLeast(1)] = 12
    """Blocks."""
    num_heads: Annotated[int, AtLeast(1)] = 12
    """Heads of attention per block; they share the width."""
    positions: Literal["learned", "sincos"] = "learned"
    """What is added to each embedded patch: trained numbers, or fixed sines and cosines of its place."""
    pre_norm: bool = True
    """Normalize the tokens before the first block."""
    norm_eps: float = 1e-5
    """Added to the variance in every norm."""
    activation: Activation = "gelu"
    """Between the two layers of each block's MLP."""
    drop_path: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of samples that skip the last block in training; earlier blocks are skipped less often."""
    final_norm: bool = True  # pyright: ignore[reportIncompatibleMethodOverride]
    """Normalize the states after the last block; MAE's fine-tuning normalizes their mean instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.positions == "sincos" and self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of 4, as positions sincos needs")

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"tokens", "attention"})

    @property
    def stride(self) -> int:
        return self.patch_size

    def as_timm(self) -> TimmModel:
        if not self.final_norm:
            raise ValueError("image_encoder.final_norm is false, and timm's ViT ends with a norm")
        known = {1e-5: "vit_base_patch16_clip_224", 1e-6: "vit_base_patch16_224"}
        if self.norm_eps not in known:
            raise ValueError(
                f"image_encoder.norm_eps is {self.norm_eps:g}, and timm's ViTs have 1e-5 or 1e-6"
            )
        sizes = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "pre_norm": self.pre_norm,
            "act_layer": self.activation,
            "fc_norm": False,
        }
        return TimmModel(known[self.norm_eps], sizes)

    def build(self) -> "VisionTransformer":
        return VisionTransformer(self)


class VisionTransformer(ImageEncoder):
    """ViT with a class token; hidden patches never enter the blocks, padding slots are invisible to all."""

    timm_names: ClassVar[Names] = (("cls_token", "class_token"), ("pos_embed", "positions"))
    positions: Tensor

    def __init__(self, config: ViTConfig) -> None:
        from timm.models.vision_transformer import VisionTransformer as Trunk

        from vlp.encoders._packed import PackedAttention

        super().__init__()
        self.config = config
        self.width = self.token_width = config.width
        trunk = Trunk(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            num_classes=0,
            global_pool="",
            pre_norm=config.pre_norm,
            norm_layer=partial(nn.LayerNorm, eps=config.norm_eps),  # pyright: ignore[reportArgumentType]
            act_layer=activation_layer(config.activation),
            attn_layer=PackedAttention,
            drop_path_rate=config.drop_path,
            final_norm=config.final_norm,
        )
        replace_drop_paths(trunk)
        self._drops_paths = config.drop_path > 0
        assert trunk.pos_embed is not None
        assert trunk.cls_token is not None
        self.patch_embed = trunk.patch_embed
        self.class_token = trunk.cls_token
        if config.positions == "learned":
            self.positions = trunk.pos_embed
        else:
            table = sincos_positions(config.num_patches, config.width)
            self.register_buffer("positions", table, persistent=False)
        self.norm_pre, self.blocks, self.norm = trunk.norm_pre, trunk.blocks, trunk.norm

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        """The view of (B, 3, H, W) images that masking strategies work on."""
        size = (len(images), self.config.num_patches)
        return MaskInputs(
            size,
            images.device,
            patches=lambda: patchify(images, self.config.patch_size),
            tokens=lambda: self._evaluate(images, self.embed),
            attention=lambda: self._evaluate(images, self._class_attention),
        )

    def adapted(self, weights: Weights) -> dict[str, Tensor]:
        """Learned positions begin as the fixed ones of a model that had these (MAE's fine-tuning)."""
        adapted, num_patches = super().adapted(weights), self.config.num_patches
        if "positions" not in adapted and self.width % 4 == 0:  # those that are fixed are no weights
            adapted["positions"] = sincos_positions(num_patches, self.width)
        if (given := adapted.get("positions")) is not None:
            adapted["positions"] = resized_positions(given, like=self.positions, num_patches=num_patches)
        return adapted

    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        embedded = self.patch_embed(images)
        tokens = torch.where(masked[:, :, None], mask_token.to(embedded.dtype), embedded)
        return self.encode(tokens + self.positions[:, 1:])[:, 1:]

    @torch.no_grad()
    def _evaluate(self, images: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
        """A view of whole images by the current weights, as in evaluation and without gradient."""
        was_training = self.training
        self.eval()
        try:
            return view(images)
        finally:
            self.train(was_training)

    def _class_attention(self, images: Tensor) -> Tensor:
        """The class token's attention to each patch in the last block, mean over heads: (B, N)."""
        trained: Any = self.blocks
        *blocks, last = trained
        x = self._first_states(self.embed(images))
        for block in blocks:
            x = block(x)
        attention = last.attn
        states = attention.qkv(last.norm1(x)).unflatten(2, (3, attention.num_heads, -1))
        query, key, _ = states.float().permute(2, 0, 3, 1, 4)  # (B, heads, 1 + N, D / heads) each
        with without_autocast(images.device):
            logits = query[:, :, :1] @ key.mT * attention.scale
        return logits.softmax(dim=3).mean(dim=1)[:, 0, 1:]

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
        if slots is not None:
            tokens = take(tokens, slots.keep_indices)
        x = self._first_states(tokens)
        if slots is None or slots.is_padding is None:
            return self.norm(self._run_blocks(x, None))
        is_real = F.pad(~slots.is_padding, (1, 0), value=True)  # the class token is
        attends = is_real[:, None, None, :]  # no head and no query attends to padding
        # The number of real tokens would have to come back from the device; paths are dropped by images.
        if x.device.type != "cpu" or (self.training and self._drops_paths):
            return self.norm(self._run_blocks(x, attends))
        from vlp.encoders._packed import pack, unpack

        return unpack(self.norm(self._run_blocks(pack(x, is_real), attends)), is_real)

    def _run_blocks(self, x: Tensor, attends: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, attn_mask=attends)
        return x

    def _first_states(self, tokens: Tensor) -> Tensor:
        """The input of the blocks: (B, V, D) -> (B, 1 + V, D)."""
        class_token = self.class_token + self.positions[:, :1]
        return self.norm_pre(torch.cat([class_token.expand(len(tokens), -1, -1), tokens], dim=1))

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + V, D): the class token, then the visible patches."""
        return self.encode(self.embed(images), slots)
