"""What an objective that rebuilds hidden patches makes of them."""

import torch
from PIL import Image
from torch import Generator, Tensor

from vlp.core.normalization import Normalization, denormalize
from vlp.objectives import Objective
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
    rebuilt = objective.rebuild(images, slots)
    if rebuilt is None:
        return None
    hidden = slots.masked(objective.image_encoder.config.num_patches)
    pasted = torch.where(by_pixel(hidden, images.shape[-1]), rebuilt, images)
    image, rebuilt, pasted = (denormalize(x, normalization) for x in (images, rebuilt, pasted))
    plain = [[(to_picture(one, scale=image_scale), "") for one in x] for x in (image, rebuilt, pasted)]
    masked = [
        (masked_picture(one, rows, scale=image_scale), f"{rows.float().mean().item():.0%} hidden")
        for one, rows in zip(image, hidden, strict=True)
    ]
    titles = ("image", "masked", "rebuilt", "pasted")
    return sheet(list(zip(titles, (plain[0], masked, *plain[1:]), strict=True)))


def by_pixel(patches: Tensor, image_size: int) -> Tensor:
    """A value of each patch at each of its pixels: (B, N) -> (B, 1, H, W)."""
    side = int(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (1, side, side))
    return grid.repeat_interleave(image_size // side, 2).repeat_interleave(image_size // side, 3)
