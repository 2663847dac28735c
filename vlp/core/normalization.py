"""Images with the mean and deviation of a data set, and back."""

from typing import Literal

import torch
from torch import Tensor

Normalization = Literal["clip", "imagenet"]

MEAN_STD: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def _mean_std(normalization: Normalization, device: torch.device) -> list[Tensor]:
    """(3, 1, 1) each, filled on the device: a copy from this machine's memory would wait for its steps."""
    return [
        torch.stack([torch.full((1, 1), value, device=device) for value in values])
        for values in MEAN_STD[normalization]
    ]


def normalize(images: Tensor, normalization: Normalization) -> Tensor:
    """(B, 3, H, W) uint8 -> float with the mean and deviation of a data set."""
    mean, std = _mean_std(normalization, images.device)
    return (images - 255 * mean).div_(255 * std)


def denormalize(images: Tensor, normalization: Normalization) -> Tensor:
    """The inverse of `normalize`, in [0, 1]."""
    mean, std = _mean_std(normalization, images.device)
    return (images * std + mean).clamp(0, 1)
