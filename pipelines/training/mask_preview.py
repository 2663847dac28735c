"""A picture of what masks hide on the images of a run."""

from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from pipelines.training.resolved import ResolvedRun
from vlp.core.normalization import denormalize, normalize
from vlp.core.seeds import mix_seeds
from vlp.data.loader import middle_squares
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs, MaskStrategy, visible_slots
from vlp.masking.strategy import uniform_noise
from vlp.pictures.masks import mask_panel

PREVIEW_IMAGES = 6


def preview_masks(run: ResolvedRun, masks: Mapping[str, MaskStrategy]) -> Image.Image:
    """What each mask hides on the first images of a run's data that can be read, after the cut."""
    config, shards = run.config, run.shards
    squares = middle_squares(
        shards, range(len(shards)), image_size=config.image_encoder.image_size, count=PREVIEW_IMAGES
    )
    images = normalize(squares, config.data.normalization)
    inputs = _inputs(images, run)
    hidden = {name: _hidden(mask, inputs, seed=config.seed) for name, mask in masks.items()}
    scale = max(1, 128 // config.image_encoder.image_size)
    return mask_panel(denormalize(images, config.data.normalization), hidden, image_scale=scale)


def _hidden(mask: MaskStrategy, inputs: MaskInputs, *, seed: int) -> Tensor:
    """(B, N) bool, True where the encoder would not see a patch."""
    generator = torch.Generator().manual_seed(mix_seeds(seed, 0))
    masked = mask(inputs, generator=generator)
    noise = None if mask.is_exact else uniform_noise(inputs, generator)
    slots = visible_slots(masked, mask.num_visible(inputs.num_patches), noise)
    return slots.masked(inputs.num_patches)


def _inputs(images: Tensor, run: ResolvedRun) -> MaskInputs:
    """The views of images; only those that are computed by weights need the run's model."""
    config = run.config.image_encoder
    return MaskInputs(
        (len(images), config.num_patches),
        images.device,
        patches=lambda: patchify(images, config.patch_size),
        tokens=lambda: run.objective.image_encoder.mask_inputs(images).tokens,
        attention=lambda: run.objective.image_encoder.mask_inputs(images).attention,
    )
