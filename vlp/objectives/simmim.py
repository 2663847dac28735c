"""SimMIM (arXiv:2111.09886): a mask token takes the places of the hidden patches; rebuild what it hides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.config import naming
from vlp.core.normalization import Normalization
from vlp.core.registry import ByName
from vlp.encoders import ImageEncoder, ImageEncoderConfig
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import (
    OBJECTIVES,
    Batch,
    Objective,
    ObjectiveConfig,
    Pooling,
    Step,
    Vocabulary,
)
from vlp.objectives.prediction_heads import PREDICTION_HEADS, LinearHeadConfig, PredictionHeadConfig
from vlp.targets import REBUILD_TARGETS, RebuildTargetConfig
from vlp.targets.pixels import PixelTargetConfig


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class SimMIMConfig(ObjectiveConfig):
    """Defaults are the paper's."""

    name: Literal["simmim"] = "simmim"
    paper: ClassVar[str] = "2111.09886"
    head: Annotated[PredictionHeadConfig, ByName(PREDICTION_HEADS)] = LinearHeadConfig()
    """What predicts the target from the states of the image encoder."""
    target: Annotated[RebuildTargetConfig, ByName(REBUILD_TARGETS)] = PixelTargetConfig()
    """What is rebuilt."""
    loss_on: Literal["hidden", "all"] = "hidden"
    """Whether only what is hidden counts, or the whole image."""

    drops_patches: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = False
    rebuilds_patches: ClassVar[bool] = True

    @property
    def formula(self) -> str:
        return "mean over M of |x' - x|"

    @property
    def pooling(self) -> Pooling:
        return "mean"

    def check(self, image_encoder: ImageEncoderConfig, mask: MaskStrategy) -> None:
        super().check(image_encoder, mask)
        self.scale(image_encoder)

    def check_normalization(self, normalization: Normalization) -> None:
        with naming("target."):
            self.target.check_normalization(normalization)

    @property
    def files(self) -> Mapping[str, Path]:
        return {f"target.{key}": file for key, file in self.target.files.items()}

    def check_files(self) -> None:
        with naming("target."):
            self.target.check_files()

    def scale(self, image_encoder: ImageEncoderConfig) -> int:
        """Places of the target per state and side."""
        resolution = self.target.side(image_encoder.image_size)
        side = image_encoder.image_size // image_encoder.stride
        if resolution % side:
            raise ValueError(
                f"objective.target.resolution {resolution} is not a multiple of the {side} states of a side "
                f"that image_encoder {image_encoder.name} gives"
            )
        return resolution // side

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "SimMIM":
        return SimMIM(self, image_encoder, mask)


class SimMIM(Objective):
    """Encodes whole images with mask tokens in them; a light head predicts the target."""

    def __init__(self, config: SimMIMConfig, image_encoder: ImageEncoder, mask: MaskStrategy) -> None:
        super().__init__(image_encoder, mask)
        config.check(image_encoder.config, mask)
        self.config = config
        self.target = config.target.build(image_encoder.config.image_size)
        self.side = image_encoder.config.image_size // image_encoder.config.stride
        scale = config.scale(image_encoder.config)
        self.head = config.head.build(image_encoder.width, self.target.channels, side=self.side, scale=scale)
        self.mask_token = nn.Parameter(torch.empty(image_encoder.token_width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """The error of every place of the target: (B, S, S)."""
        masked = slots.masked(self.image_encoder.config.num_patches)
        return (self.target.errors(self.predict(batch.images, masked), batch.images),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (errors,) = outputs
        weights = torch.ones_like(errors)
        if self.config.loss_on == "hidden":
            masked = slots.masked(self.image_encoder.config.num_patches)
            weights = hidden_share(masked, self.target.resolution)
        return Step(masked_mean(errors, weights), {})

    def changing_buffers(self) -> list[Tensor]:
        return self.image_encoder.changing_buffers()  # codes stay what they are

    def features(self, images: Tensor) -> Tensor:
        """Mean of the patches' states; the class token is not trained to hold anything."""
        return self.image_encoder(images)[:, 1:].mean(dim=1)

    @torch.no_grad()
    def rebuild(self, images: Tensor, slots: Slots) -> Tensor | None:
        """Maps of a lower resolution are enlarged; None for a target that is not colours."""
        hidden = slots.masked(self.image_encoder.config.num_patches)
        pixels = self.target.pixels(self.predict(images, hidden))
        return None if pixels is None else F.interpolate(pixels, size=images.shape[-1], mode="nearest")

    def predict(self, images: Tensor, masked: Tensor) -> Tensor:
        """The whole map, of images with hidden patches: (B, 3, H, W), (B, N) -> (B, C, S, S)."""
        states = self.image_encoder.encode_replaced(images, masked, self.mask_token)
        return self.head(states.transpose(1, 2).unflatten(2, (self.side, self.side)))


def hidden_share(masked: Tensor, resolution: int) -> Tensor:
    """How much of each place of a square map is hidden: (B, N) bool -> (B, S, S) in [0, 1]."""
    grid = masked.float().unflatten(1, (int(masked.shape[1] ** 0.5), -1))[:, None]
    if resolution % grid.shape[-1] == 0:
        return F.interpolate(grid, size=resolution, mode="nearest")[:, 0]
    return F.adaptive_avg_pool2d(grid, resolution)[:, 0]
