"""A picture of what masks hide on the images of a run."""

from collections.abc import Mapping

from PIL import Image
from torch import Tensor

from pipelines.training.resolved import ResolvedRun
from vlp.core.normalization import denormalize, normalize
from vlp.data.loader import middle_squares
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs, MaskStrategy
from vlp.pictures.mask_grid import look
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
    hidden = {name: look(mask, inputs, seed=config.seed).hidden for name, mask in masks.items()}
    scale = max(1, 128 // config.image_encoder.image_size)
    return mask_panel(denormalize(images, config.data.normalization), hidden, image_scale=scale)


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
