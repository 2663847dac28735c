"""The similarity threshold that hides a wanted share of the patches, searched on real images."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vlp.masking.cluster import ClusterMask
from vlp.masking.strategy import MaskInputs

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOLERANCE = 1e-3


class Calibration(NamedTuple):
    """A calibrated mask and what it does to the images it was calibrated on."""

    mask: ClusterMask
    mask_ratio: float
    """Mean share of patches that anchors and clusters hide."""
    quantiles: dict[float, float]
    """Per-image mask ratio at each of `QUANTILES`."""


def calibrate(mask: ClusterMask, batches: Iterable[Tensor], *, seed: int = 0) -> Calibration:
    """Find the threshold whose mean mask ratio is `mask.target_mask_ratio`, within 1e-3.

    The ratio is that of anchors and clusters, before `min_mask_ratio` cuts further (with both at 0.5 the
    ratio after the cut could never be met). Anchors are drawn once, so the ratio falls monotonically
    with the threshold and a bisection finds it.

    Args:
        batches: patches of at least 2,000 images in all, (B, N, P) each.

    Raises:
        ValueError: no threshold meets the target; the message says what is reachable.
    """
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.cat(
        [mask.anchor_similarity(MaskInputs.of(patches), generator=generator) for patches in batches]
    )
    threshold = _bisect(similarity, mask.target_mask_ratio)
    per_image = (similarity > threshold).float().mean(dim=1)
    mask_ratio = per_image.mean().item()
    if abs(mask_ratio - mask.target_mask_ratio) > TOLERANCE:
        raise ValueError(_unreachable(mask, similarity, threshold))
    levels = torch.quantile(per_image, torch.tensor(QUANTILES)).tolist()
    calibrated = replace(mask, threshold=threshold)
    return Calibration(calibrated, mask_ratio, dict(zip(QUANTILES, levels, strict=True)))


def _bisect(similarity: Tensor, target: float, steps: int = 50) -> float:
    low, high = -1.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if _ratio(similarity, middle) > target:
            low = middle
        else:
            high = middle
    # Between two ratios that jump, either may be the nearer one.
    return min(high, low, key=lambda threshold: abs(_ratio(similarity, threshold) - target))


def _ratio(similarity: Tensor, threshold: float) -> float:
    return (similarity > threshold).float().mean().item()


def _unreachable(mask: ClusterMask, similarity: Tensor, threshold: float) -> str:
    below, above = (_ratio(similarity, nearby) for nearby in (threshold + 1e-6, threshold - 1e-6))
    anchors = mask.num_anchors(similarity.shape[1]) / similarity.shape[1]
    return (
        f"target_mask_ratio {mask.target_mask_ratio} cannot be met within {TOLERANCE}: the anchors alone "
        f"hide {anchors:.3f}, and around the target this data reaches only {below:.3f} or {above:.3f}; "
        f"choose one of these, or another anchor_ratio (now {mask.anchor_ratio})"
    )
