"""Masked autoencoder (arXiv:2111.06377): rebuild the hidden patches from the visible ones.

With a decoder that sees visible patches alone it is CrossMAE (arXiv:2401.14391).
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from vlp.core.config import AtLeast, Within
from vlp.encoders import ImageEncoder
from vlp.encoders.cross_attention import CrossBlock, attended
from vlp.encoders.patches import patchify, sincos_positions, take, unpatchify
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
    pooled,
)

NORM = partial(nn.LayerNorm, eps=1e-6)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MAEConfig(ObjectiveConfig):
    """Defaults are the paper's decoder."""

    name: Literal["mae"] = "mae"
    paper: ClassVar[str] = "2111.06377"
    decoder: Literal["joint", "cross"] = "joint"
    """What rebuilds: MAE's `joint` decoder, in which all patches see each other, or CrossMAE's `cross`, in
    which hidden patches look at visible ones alone."""
    predicted_ratio: Annotated[float, Within(0, 1, "(]")] = 1.0
    """Share of the hidden patches that are rebuilt, of the `cross` decoder; CrossMAE takes 0.25 to 1."""
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

    @property
    def architecture(self) -> Architecture:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "mae" if self.decoder == "joint" else "other"

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
        if self.decoder == "joint" and self.predicted_ratio < 1:
            raise ValueError(
                f"predicted_ratio is {self.predicted_ratio:g} and decoder joint, which rebuilds all that is "
                "hidden; set decoder=cross"
            )

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "MAE":
        return DECODERS[self.decoder](self, image_encoder, mask)


class MAE(Objective):
    """Encodes the visible patches; a light decoder rebuilds the pixels of all others."""

    positions: Tensor

    def __init__(self, config: MAEConfig, image_encoder: ImageEncoder, mask: MaskStrategy) -> None:
        super().__init__(image_encoder, mask)
        config.check(image_encoder.config, mask)
        self.config = config
        width, patch_size = config.decoder_width, image_encoder.config.patch_size
        self.to_decoder = nn.Linear(image_encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        table = sincos_positions(image_encoder.config.num_patches, width)
        self.register_buffer("positions", table, persistent=False)
        self.decoder = nn.Sequential(
            *(self.block(width, config.decoder_heads) for _ in range(config.decoder_depth)), NORM(width)
        )
        self.to_pixels = nn.Linear(width, patch_size**2 * 3)
        self._init_weights()

    @property
    def blocks(self) -> list[nn.Module]:
        *blocks, _ = self.decoder
        return [*super().blocks, *blocks]

    def block(self, width: int, num_heads: int) -> nn.Module:
        """A block of the decoder."""
        from timm.models.vision_transformer import Block

        return Block(width, num_heads, qkv_bias=True, norm_layer=NORM)  # pyright: ignore[reportArgumentType]

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """The error of every patch: (B, N)."""
        predictions = self.decode(self.image_encoder(batch.images, slots), slots)
        return (patch_errors(predictions, self.targets(batch.images)),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (errors,) = outputs
        return Step(masked_mean(errors, slots.masked(errors.shape[1])), {})

    def features(self, images: Tensor) -> Tensor:
        return pooled(self.image_encoder(images), self.config.pool, None)

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


class CrossMAE(MAE):
    """Rebuilds a share of the hidden patches, each from the visible ones alone; of the last block's states,
    where the paper's decoder may weigh those of all blocks."""

    @property
    def num_draws(self) -> int:
        return self.image_encoder.config.num_patches

    def block(self, width: int, num_heads: int) -> nn.Module:
        return CrossBlock(width, num_heads)

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """The errors of patches that are rebuilt, and which of them are hidden: (B, K), (B, K) bool."""
        masked = slots.masked(self.image_encoder.config.num_patches)
        places = self._places(masked)
        predictions = self.decode_at(places, self.image_encoder(batch.images, slots), slots)
        targets = take(self.targets(batch.images), places)
        return patch_errors(predictions, targets), masked.gather(1, places)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        errors, is_hidden = outputs
        return Step(masked_mean(errors, is_hidden), {})

    def _places(self, masked: Tensor) -> Tensor:
        """Hidden patches at random; visible ones, which do not count, where an image hides fewer."""
        N = masked.shape[1]
        hidden = N - self.mask.num_visible(N) or N
        noise = torch.zeros(masked.shape, device=masked.device) if self.draws is None else self.draws
        chosen = (noise + ~masked).argsort(dim=1, stable=True)
        return chosen[:, : max(1, round(self.config.predicted_ratio * hidden))]

    def decode(self, states: Tensor, slots: Slots) -> Tensor:
        places = torch.arange(self.image_encoder.config.num_patches, device=states.device)
        return self.decode_at(places.expand(len(states), -1), states, slots)

    def decode_at(self, places: Tensor, states: Tensor, slots: Slots) -> Tensor:
        """Rebuild some patches from the encoder's states: (B, K), (B, 1 + V, D) -> (B, K, P)."""
        memory, attends = self.to_decoder(states), attended(slots)
        x = (self.mask_token + self.positions[0, 1:])[places].to(memory.dtype)
        *blocks, norm = self.decoder
        for block in blocks:
            x = block(x, memory, attends)
        return self.to_pixels(norm(x))


DECODERS = {"joint": MAE, "cross": CrossMAE}


def patch_errors(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each patch, in float32: (B, N, P), (B, N, P) -> (B, N)."""
    return (predictions.float() - targets).square().mean(dim=2)
