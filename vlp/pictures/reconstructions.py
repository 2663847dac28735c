"""What an objective that rebuilds hidden patches makes of them: MAE, and SimMIM with a target of colours."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from vlp.core.normalization import Normalization, denormalize
from vlp.encoders.patches import patchify, unpatchify
from vlp.losses.reconstruction import hidden_patches
from vlp.masking import Slots
from vlp.masking.similarity import patch_moments
from vlp.objectives import Objective
from vlp.objectives.mae import MAE
from vlp.objectives.simmim import SimMIM
from vlp.pictures.masks import masked_picture, sheet, to_picture


@torch.no_grad()
def reconstructions(
    objective: Objective,
    images: Tensor,
    *,
    normalization: Normalization,
    progress: float,
    generator: Generator | None = None,
    image_scale: int = 1,
) -> Image.Image | None:
    """Sheet of images, masked, as rebuilt, and as rebuilt with the visible patches in their places.

    Args:
        images: (B, 3, H, W), normalized.
        progress: share of the training that is done, in [0, 1); for masks that change with it.
        generator: source of the masks' randomness.
        image_scale: pixels drawn per pixel of an image.

    Returns:
        None for an objective that rebuilds nothing that a picture shows.
    """
    slots = objective.choose_visible(images, progress=progress, generator=generator)
    rebuilt = rebuild(objective, images, slots)
    if rebuilt is None:
        return None
    hidden = hidden_patches(slots, objective.image_encoder.config.num_patches)
    pasted = torch.where(by_pixel(hidden, images.shape[-1]), rebuilt, images)
    image, rebuilt, pasted = (denormalize(x, normalization) for x in (images, rebuilt, pasted))
    plain = [[(to_picture(one, scale=image_scale), "") for one in x] for x in (image, rebuilt, pasted)]
    masked = [
        (masked_picture(one, rows, scale=image_scale), f"{rows.float().mean().item():.0%} hidden")
        for one, rows in zip(image, hidden, strict=True)
    ]
    titles = ("image", "masked", "rebuilt", "pasted")
    return sheet(list(zip(titles, (plain[0], masked, *plain[1:]), strict=True)))


@torch.no_grad()
def rebuild(objective: Objective, images: Tensor, slots: Slots) -> Tensor | None:
    """Whole images as the objective predicts them, in normalized pixels: (B, 3, H, W) -> (B, 3, H, W).

    MAE's predictions of normalized patches are undone by the true mean and deviation of each patch, which the
    model never sees. Maps of a lower resolution are enlarged. None for predictions that are no colours.
    """
    if isinstance(objective, MAE):
        predictions = objective.decode(objective.image_encoder(images, slots), slots).float()
        patch_size = objective.image_encoder.config.patch_size
        if objective.config.norm_pix_loss:
            mean, deviation = patch_moments(patchify(images, patch_size))
            predictions = predictions * deviation + mean
        return unpatchify(predictions, patch_size)
    if isinstance(objective, SimMIM):
        hidden = hidden_patches(slots, objective.image_encoder.config.num_patches)
        pixels = objective.target.pixels(objective.predict(images, hidden))
        return None if pixels is None else F.interpolate(pixels, size=images.shape[-1], mode="nearest")
    return None


def by_pixel(patches: Tensor, image_size: int) -> Tensor:
    """A value of each patch at each of its pixels: (B, N) -> (B, 1, H, W)."""
    side = int(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (1, side, side))
    return grid.repeat_interleave(image_size // side, 2).repeat_interleave(image_size // side, 3)
