"""Masked autoencoder (arXiv:2111.06377): rebuild the hidden patches from the visible ones."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from vlp.core.config import AtLeast
from vlp.encoders import ImageEncoder
from vlp.encoders.patches import patchify, sincos_positions, unpatchify
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy, Slots
from vlp.masking.similarity import patch_moments, standardize_patches
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import (
    OBJECTIVES,
    Architecture,
    Batch,
    Objective,
    ObjectiveConfig,
    Pooling,
    Step,
    Vocabulary,
)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MAEConfig(ObjectiveConfig):
    """Defaults are the paper's decoder."""

    name: Literal["mae"] = "mae"
    paper: ClassVar[str] = "2111.06377"
    decoder_width: Annotated[int, AtLeast(1)] = 512
    """Numbers per token of the decoder; a multiple of 4 and of `decoder_heads`."""
    decoder_depth: Annotated[int, AtLeast(0)] = 8
    """Blocks of the decoder."""
    decoder_heads: Annotated[int, AtLeast(1)] = 16
    """Heads of attention per block of the decoder."""
    norm_pix_loss: bool = True
    """Give every target patch zero mean and unit variance."""
    pool: Pooling = "class_token"
    """What evaluations of frozen features read: the paper's class token, or the mean of the patches."""

    reads_captions: ClassVar[bool] = False
    rebuilds_patches: ClassVar[bool] = True
    architecture: ClassVar[Architecture] = "mae"

    @property
    def formula(self) -> str:
        return "mean over M of |x' - x|^2"

    @property
    def pooling(self) -> Pooling:
        return self.pool

    def __post_init__(self) -> None:
        super().__post_init__()
        for divisor in (4, self.decoder_heads):
            if self.decoder_width % divisor:
                raise ValueError(f"decoder_width {self.decoder_width} is not a multiple of {divisor}")

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "MAE":
        return MAE(self, image_encoder, mask)


class MAE(Objective):
    """Encodes the visible patches; a light decoder rebuilds the pixels of all others."""

    positions: Tensor

    def __init__(self, config: MAEConfig, image_encoder: ImageEncoder, mask: MaskStrategy) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        config.check(image_encoder.config, mask)
        self.config = config
        self.mask = mask
        self.image_encoder = image_encoder
        width, patch_size = config.decoder_width, image_encoder.config.patch_size
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.to_decoder = nn.Linear(image_encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        table = sincos_positions(image_encoder.config.num_patches, width)
        self.register_buffer("positions", table, persistent=False)
        self.decoder = nn.Sequential(
            *(
                Block(width, config.decoder_heads, qkv_bias=True, norm_layer=norm)  # pyright: ignore[reportArgumentType]
                for _ in range(config.decoder_depth)
            ),
            norm(width),
        )
        self.to_pixels = nn.Linear(width, patch_size**2 * 3)
        self._init_weights()

    @property
    def blocks(self) -> list[nn.Module]:
        *blocks, _ = self.decoder
        return [*super().blocks, *blocks]

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """The error of every patch: (B, N)."""
        predictions = self.decode(self.image_encoder(batch.images, slots), slots)
        return (patch_errors(predictions, self.targets(batch.images)),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (errors,) = outputs
        return Step(masked_mean(errors, slots.masked(errors.shape[1])), {})

    def features(self, images: Tensor) -> Tensor:
        states = self.image_encoder(images)
        return states[:, 0] if self.config.pool == "class_token" else states[:, 1:].mean(dim=1)

    @torch.no_grad()
    def rebuild(self, images: Tensor, slots: Slots) -> Tensor:
        """Predictions of normalized patches are undone by each patch's true mean and deviation, which the
        model never sees."""
        predictions = self.decode(self.image_encoder(images, slots), slots).float()
        patch_size = self.image_encoder.config.patch_size
        if self.config.norm_pix_loss:
            mean, deviation = patch_moments(patchify(images, patch_size))
            predictions = predictions * deviation + mean
        return unpatchify(predictions, patch_size)

    def decode(self, states: Tensor, slots: Slots) -> Tensor:
        """Rebuild every patch from the encoder's states: (B, 1 + V, D) -> (B, N, P)."""
        states = self.to_decoder(states)
        mask_token = self.mask_token.to(states.dtype)
        visible = states[:, 1:]
        if slots.is_padding is not None:
            visible = torch.where(slots.is_padding[:, :, None], mask_token, visible)
        N = self.image_encoder.config.num_patches
        indices = slots.keep_indices[:, :, None].expand_as(visible)
        tokens = mask_token.expand(len(states), N, -1).scatter(1, indices, visible)
        tokens = torch.cat([states[:, :1], tokens], dim=1) + self.positions
        return self.to_pixels(self.decoder(tokens)[:, 1:])

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """What is to be rebuilt: (B, 3, H, W) -> (B, N, P)."""
        patches = patchify(images, self.image_encoder.config.patch_size).float()
        return standardize_patches(patches) if self.config.norm_pix_loss else patches

    @torch.no_grad()
    def _init_weights(self) -> None:
        """As the release: Xavier for every matrix, the patch embedding seen as one (section A.1)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("class_token", "mask_token")):
                nn.init.normal_(parameter, std=0.02)


def patch_errors(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each patch, in float32: (B, N, P), (B, N, P) -> (B, N)."""
    return (predictions.float() - targets).square().mean(dim=2)
