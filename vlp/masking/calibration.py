"""The similarity threshold that hides a wanted share of the patches, searched on real images."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from vlp.masking.anchors import knots
from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.similarity import AnchorRows
from vlp.masking.strategy import MaskInputs

ThresholdTable = tuple[tuple[float, float], ...]
"""Pairs of progress and threshold, in order of progress."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOLERANCE = 1e-3


class ThresholdMask(Protocol):
    """What the search needs of a mask that hides anchors with all that looks like them."""

    @property
    def target_mask_ratio(self) -> Ratio: ...
    @property
    def anchor_ratio(self) -> float: ...
    @property
    def measure(self) -> str: ...
    @property
    def moments(self) -> Set[float]: ...
    def alpha(self, progress: float) -> float: ...
    def compare_all(
        self, inputs: Iterable[MaskInputs], *, alphas: Sequence[float], seed: int
    ) -> tuple[AnchorRows, Tensor]: ...
    def num_anchors(self, num_patches: int) -> int: ...
    def num_visible(self, num_patches: int) -> int: ...


Mask = TypeVar("Mask", bound=ThresholdMask)


class FoundThreshold(NamedTuple, Generic[Mask]):
    """A calibrated mask and what it does to the images it was calibrated on."""

    mask: Mask
    threshold: float
    """The threshold at this progress; where it changes with the training, the mask has the whole table."""
    mask_ratio: float
    """Mean share of patches hidden at this progress, as `mask.measure` counts them."""
    quantiles: dict[str, float]
    """Of the ratios of the images, by name."""

    @property
    def metrics(self) -> dict[str, float]:
        """The threshold, and what it hides over all and per image, to be logged."""
        return {"threshold": self.threshold, "mask_ratio": self.mask_ratio} | self.quantiles


def calibrate(mask: Mask, inputs: Iterable[MaskInputs], *, seed: int = 0) -> FoundThreshold[Mask]:
    """Find the threshold whose mean mask ratio is `mask.target_mask_ratio`, within 1e-3.

    Where the target or alpha changes with the training, the mask gets a table of thresholds. Embeddings
    change with the weights, so their table is right for the weights of the inputs: see `recalibrate`.
    Anchors are drawn once, so the ratio falls monotonically with the threshold and a bisection finds it.

    Args:
        inputs: at least 2,000 images in all.

    Raises:
        ValueError: no threshold meets the target; the message says what is reachable.
    """
    return _calibrate(mask, inputs, search, moments=knots(mask.moments, 0.0, 1.0), seed=seed)


def recalibrate(
    mask: Mask, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int = 0
) -> FoundThreshold[Mask]:
    """Search again in the middle of the training, for a part of it.

    A target that the weights of the moment cannot meet is met as nearly as they can: no reason to stop.

    Args:
        progress: share of the training that is done, in [0, 1).
        until: where the next search follows, in (progress, 1].
    """
    return _calibrate(mask, inputs, nearest, moments=knots(mask.moments, progress, until), seed=seed)


def _calibrate(
    mask: Mask,
    inputs: Iterable[MaskInputs],
    find: Callable[[Mask, AnchorRows, float], float],
    *,
    moments: Sequence[float],
    seed: int,
) -> FoundThreshold[Mask]:
    progress = moments[0]
    rows, _ = mask.compare_all(inputs, alphas=[mask.alpha(moment) for moment in moments], seed=seed)
    table = tuple((moment, find(mask, rows, moment)) for moment in moments)
    threshold = table[0][1]
    per_image = _ratios(mask, rows.nearest(mask.alpha(progress)), threshold)
    return FoundThreshold(
        replace(mask, threshold=table if len(table) > 1 else threshold),  # pyright: ignore[reportArgumentType]
        threshold,
        per_image.mean().item(),
        quantiles_of(per_image),
    )


def quantiles_of(ratios: Tensor) -> dict[str, float]:
    """Some quantiles of the mask ratios of images, by name: (B,) -> numbers."""
    found = torch.quantile(ratios, ratios.new_tensor(QUANTILES)).tolist()
    names = (f"mask_ratio_p{round(100 * level)}" for level in QUANTILES)
    return dict(zip(names, found, strict=True))


def search(mask: ThresholdMask, rows: AnchorRows, progress: float) -> float:
    """The threshold that meets the target at a progress, or a ValueError that says what can be met."""
    threshold = nearest(mask, rows, progress)
    target = ratio_at(mask.target_mask_ratio, progress)
    similarity = rows.nearest(mask.alpha(progress))
    if abs(_ratio(mask, similarity, threshold) - target) > TOLERANCE:
        raise ValueError(_unreachable(mask, similarity, target, threshold))
    return threshold


def nearest(mask: ThresholdMask, rows: AnchorRows, progress: float) -> float:
    """The threshold that comes nearest to the target at a progress."""
    target = ratio_at(mask.target_mask_ratio, progress)
    return _bisect(mask, rows.nearest(mask.alpha(progress)), target)


def _bisect(mask: ThresholdMask, similarity: Tensor, target: float, steps: int = 50) -> float:
    low, high = -1.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if _ratio(mask, similarity, middle) > target:
            low = middle
        else:
            high = middle
    # Between two ratios that jump, either may be the nearer one.
    return min(high, low, key=lambda threshold: abs(_ratio(mask, similarity, threshold) - target))


def _ratios(mask: ThresholdMask, similarity: Tensor, threshold: float) -> Tensor:
    """Each image's mask ratio, as the mask measures it: (B, N) -> (B,)."""
    ratios = (similarity > threshold).float().mean(dim=1)
    if mask.measure == "raw":
        return ratios
    N = similarity.shape[1]
    return ratios.clamp_min(1 - mask.num_visible(N) / N)


def _ratio(mask: ThresholdMask, similarity: Tensor, threshold: float) -> float:
    return _ratios(mask, similarity, threshold).mean().item()


def _unreachable(mask: ThresholdMask, similarity: Tensor, target: float, threshold: float) -> str:
    below, above = (_ratio(mask, similarity, nearby) for nearby in (threshold + 1e-6, threshold - 1e-6))
    anchors = mask.num_anchors(similarity.shape[1]) / similarity.shape[1]
    return (
        f"target_mask_ratio {target} cannot be met within {TOLERANCE}: the anchors alone "
        f"hide {anchors:.3f}, and around the target this data reaches only {below:.3f} or {above:.3f}; "
        f"choose one of these, or another anchor_ratio (now {mask.anchor_ratio})"
    )
