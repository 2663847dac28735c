"""The similarity threshold that hides a wanted share of the patches, searched on real images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import nextafter
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from vlp.masking.schedule import Ratio, Schedule, ratio_at
from vlp.masking.similarity import AnchorRows, compare_to_anchors
from vlp.masking.strategy import MaskInputs

ThresholdTable = tuple[tuple[float, float], ...]
"""Pairs of progress and threshold, in order of progress."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOLERANCE = 1e-3
KNOTS = 32
"""Parts into which a table of thresholds divides the training."""


class AnchorMask(Protocol):
    """What the search needs of a mask that hides anchors with all that looks like them."""

    @property
    def target_mask_ratio(self) -> Ratio: ...
    @property
    def anchor_ratio(self) -> float: ...
    @property
    def pixel_norm(self) -> bool: ...
    @property
    def measure(self) -> str: ...
    @property
    def feature(self) -> str: ...
    def alpha(self, progress: float) -> float: ...
    def draw_anchors(self, noise: Tensor) -> Tensor: ...
    def num_anchors(self, num_patches: int) -> int: ...
    def num_visible(self, num_patches: int) -> int: ...


Mask = TypeVar("Mask", bound=AnchorMask)


class FoundThreshold(NamedTuple, Generic[Mask]):
    """A calibrated mask and what it does to the images it was calibrated on."""

    mask: Mask
    threshold: float
    """The threshold at this progress; where it changes with the training, the mask has the whole table."""
    mask_ratio: float
    """Mean share of patches hidden at this progress, as `mask.measure` counts them."""
    quantiles: dict[float, float]
    """Per-image mask ratio at each of `QUANTILES`."""

    @property
    def metrics(self) -> dict[str, float]:
        """The threshold, and what it hides over all and per image, to be logged."""
        return {"threshold": self.threshold, "mask_ratio": self.mask_ratio} | {
            f"mask_ratio_p{round(100 * level)}": ratio for level, ratio in self.quantiles.items()
        }


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
    return _calibrate(mask, inputs, search, knots=_knots(mask, 0.0, 1.0), seed=seed)


def recalibrate(
    mask: Mask, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int = 0
) -> FoundThreshold[Mask]:
    """Search again in the middle of the training, for a part of it.

    A target that the weights of the moment cannot meet is met as nearly as they can: no reason to stop.

    Args:
        progress: share of the training that is done, in [0, 1).
        until: where the next search follows, in (progress, 1].
    """
    return _calibrate(mask, inputs, nearest, knots=_knots(mask, progress, until), seed=seed)


def _calibrate(
    mask: Mask,
    inputs: Iterable[MaskInputs],
    find: Callable[[Mask, AnchorRows, float], float],
    *,
    knots: Sequence[float],
    seed: int,
) -> FoundThreshold[Mask]:
    progress = knots[0]
    rows = _anchor_rows(mask, inputs, alphas=[mask.alpha(knot) for knot in knots], seed=seed)
    table = tuple((knot, find(mask, rows, knot)) for knot in knots)
    threshold = table[0][1]
    per_image = _ratios(mask, rows.nearest(mask.alpha(progress)), threshold)
    levels = torch.quantile(per_image, per_image.new_tensor(QUANTILES)).tolist()
    return FoundThreshold(
        replace(mask, threshold=table if len(table) > 1 else threshold),  # pyright: ignore[reportArgumentType]
        threshold,
        per_image.mean().item(),
        dict(zip(QUANTILES, levels, strict=True)),
    )


def _knots(mask: AnchorMask, progress: float, until: float) -> list[float]:
    """Where the thresholds are searched: here, and as far as asked if anything changes."""
    target, moments = mask.target_mask_ratio, set()
    if mask.feature == "mix" or isinstance(target, Schedule):
        moments |= {i / KNOTS for i in range(KNOTS + 1)}
    if isinstance(target, Schedule):
        # The last one before `finish` keeps a step from being interpolated.
        moments |= {target.begin, nextafter(target.finish, 0), target.finish}
    if moments:
        moments.add(until)
    return sorted({progress, *(moment for moment in moments if progress < moment <= until)})


def _anchor_rows(
    mask: AnchorMask, inputs: Iterable[MaskInputs], *, alphas: Sequence[float], seed: int
) -> AnchorRows:
    """The similarities of all images to anchors that only the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for images in inputs:
        noise = torch.rand(images.num_images, images.num_patches, generator=generator)
        anchors = mask.draw_anchors(noise).to(images.device)
        parts.append(compare_to_anchors(images, anchors, alphas=alphas, pixel_norm=mask.pixel_norm))
    anchors, rgb, embedding = (
        None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)
    )
    assert anchors is not None
    return AnchorRows(anchors, rgb, embedding)


def search(mask: AnchorMask, rows: AnchorRows, progress: float) -> float:
    """The threshold that meets the target at a progress, or a ValueError that says what can be met."""
    threshold = nearest(mask, rows, progress)
    target = ratio_at(mask.target_mask_ratio, progress)
    similarity = rows.nearest(mask.alpha(progress))
    if abs(_ratio(mask, similarity, threshold) - target) > TOLERANCE:
        raise ValueError(_unreachable(mask, similarity, target, threshold))
    return threshold


def nearest(mask: AnchorMask, rows: AnchorRows, progress: float) -> float:
    """The threshold that comes nearest to the target at a progress."""
    target = ratio_at(mask.target_mask_ratio, progress)
    return _bisect(mask, rows.nearest(mask.alpha(progress)), target)


def _bisect(mask: AnchorMask, similarity: Tensor, target: float, steps: int = 50) -> float:
    low, high = -1.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if _ratio(mask, similarity, middle) > target:
            low = middle
        else:
            high = middle
    # Between two ratios that jump, either may be the nearer one.
    return min(high, low, key=lambda threshold: abs(_ratio(mask, similarity, threshold) - target))


def _ratios(mask: AnchorMask, similarity: Tensor, threshold: float) -> Tensor:
    """Each image's mask ratio, as the mask measures it: (B, N) -> (B,)."""
    ratios = (similarity > threshold).float().mean(dim=1)
    if mask.measure == "raw":
        return ratios
    N = similarity.shape[1]
    return ratios.clamp_min(1 - mask.num_visible(N) / N)


def _ratio(mask: AnchorMask, similarity: Tensor, threshold: float) -> float:
    return _ratios(mask, similarity, threshold).mean().item()


def _unreachable(mask: AnchorMask, similarity: Tensor, target: float, threshold: float) -> str:
    below, above = (_ratio(mask, similarity, nearby) for nearby in (threshold + 1e-6, threshold - 1e-6))
    anchors = mask.num_anchors(similarity.shape[1]) / similarity.shape[1]
    return (
        f"target_mask_ratio {target} cannot be met within {TOLERANCE}: the anchors alone "
        f"hide {anchors:.3f}, and around the target this data reaches only {below:.3f} or {above:.3f}; "
        f"choose one of these, or another anchor_ratio (now {mask.anchor_ratio})"
    )
