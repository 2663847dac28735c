"""The Swin transformer (arXiv:2103.14030), on timm's modules."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from vlp.core.config import AtLeast, Within
from vlp.encoders.drop_path import replace_drop_paths
from vlp.encoders.image_encoder import IMAGE_ENCODERS, ImageEncoder, ImageEncoderConfig, TimmModel, Weights
from vlp.encoders.patches import patchify
from vlp.encoders.relative_positions import resized_table
from vlp.masking import MaskInputs, Slots


@IMAGE_ENCODERS.register
@dataclass(frozen=True, kw_only=True)
class SwinConfig(ImageEncoderConfig):
    """Defaults are Swin-B in SimMIM."""

    name: Literal["swin"] = "swin"
    image_size: Annotated[int, AtLeast(1)] = 192
    """Side of the square input, in pixels."""
    patch_size: Annotated[int, AtLeast(1)] = 4  # pyright: ignore[reportIncompatibleMethodOverride]
    """Side of a patch, in pixels."""
    width: Annotated[int, AtLeast(1)] = 128
    """Width of the first stage; each later stage doubles it."""
    depths: tuple[Annotated[int, AtLeast(1)], ...] = (2, 2, 18, 2)
    """Blocks of each stage; each later stage halves the sides."""
    num_heads: tuple[Annotated[int, AtLeast(1)], ...] = (4, 8, 16, 32)
    """Heads of attention in the blocks of each stage."""
    window_size: Annotated[int, AtLeast(1)] = 6
    """Side of a window of attention, in states."""
    drop_path: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of samples that skip the last block in training; earlier blocks are skipped less often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.stride:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {self.stride}, as depths need"
            )
        if len(self.num_heads) != len(self.depths):
            raise ValueError(f"num_heads {self.num_heads} and depths {self.depths} differ in length")
        for stage, num_heads in enumerate(self.num_heads):
            if self.width * 2**stage % num_heads:
                raise ValueError(f"width {self.width * 2**stage} is not a multiple of num_heads {num_heads}")

    @property
    def can_drop_patches(self) -> bool:
        return False

    @property
    def stride(self) -> int:
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def as_timm(self) -> TimmModel:
        sizes = {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "embed_dim": self.width,
            "depths": self.depths,
            "num_heads": self.num_heads,
            "window_size": self.window_size,
        }
        return TimmModel("swin_base_patch4_window7_224", sizes)

    def build(self) -> "Swin":
        return Swin(self)


class Swin(ImageEncoder):
    """Attention within windows, four times fewer states per stage; it always sees whole images."""

    def __init__(self, config: SwinConfig) -> None:
        from timm.models.swin_transformer import SwinTransformer

        super().__init__()
        self.config = config
        self.token_width = config.width
        self.width = config.width * 2 ** (len(config.depths) - 1)
        trunk = SwinTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=config.window_size,
            drop_path_rate=config.drop_path,
            num_classes=0,
        )
        replace_drop_paths(trunk)
        self.patch_embed, self.layers, self.norm = trunk.patch_embed, trunk.layers, trunk.norm
        stages: Any = self.layers
        self.blocks = [block for stage in stages for block in stage.blocks]

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        size = (len(images), self.config.num_patches)
        return MaskInputs(
            size,
            images.device,
            patches=lambda: patchify(images, self.config.patch_size),
            tokens=lambda: self.patch_embed(images).flatten(1, 2).detach(),
        )

    def adapted(self, weights: Weights) -> dict[str, Tensor]:
        """Tables of relative positions are resized to the windows."""
        adapted, own = super().adapted(weights), dict(self.named_parameters())
        tables = [name for name in adapted if name.endswith("bias_table") and name in own]
        return adapted | {name: resized_table(adapted[name], num_entries=len(own[name])) for name in tables}

    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        embedded = self.patch_embed(images)
        is_hidden = masked.view(embedded.shape[:3])[..., None]
        return self._encode(torch.where(is_hidden, mask_token.to(embedded.dtype), embedded))

    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        if slots is not None and slots.keep_indices.shape[1] < self.config.num_patches:
            raise ValueError("a Swin needs all patches; none can be left out")
        states = self._encode(self.patch_embed(images))
        return torch.cat([states.mean(dim=1, keepdim=True), states], dim=1)

    def _encode(self, tokens: Tensor) -> Tensor:
        """(B, side, side, token_width) -> (B, states, D)."""
        return self.norm(self.layers(tokens)).flatten(1, 2)
