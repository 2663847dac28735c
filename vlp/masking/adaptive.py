"""Cluster masking with a ratio for each image, by how simple it is: future work of arXiv:2405.08815."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from vlp.core.config import Within
from vlp.masking.anchors import AnchorMask, interpolate, knots
from vlp.masking.calibration import quantiles_of
from vlp.masking.schedule import lowest_ratio, ratio_at
from vlp.masking.similarity import AnchorRows
from vlp.masking.strategy import STRATEGIES, Calibration, MaskInputs, hide_highest

QuantileTable = tuple[tuple[float, tuple[float, ...]], ...]
"""Pairs of progress and evenly spaced quantiles, in order of progress."""
NUM_PARTS = 16
"""Parts into which the quantiles divide the images."""


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class AdaptiveClusterMask(AnchorMask):
    """Hides anchors and what looks most like one of them: much of simple images, little of complex ones.

    An image's simplicity is the mean similarity of its patches to the nearest anchor. Its rank u among
    training images, in [0, 1], decides the share hidden, target + (2 u - 1) spread. Ranks are uniform, so the
    mean meets the target, and no image depends on the others of its batch.
    """

    name: Literal["adaptive"] = "adaptive"
    formula: ClassVar[str] = (
        "M = the (target + (2 u - 1) spread) N patches of greatest s(j) = max over a in A of s(a, j), "
        "u = rank of mean s among images"
    )
    spread: Annotated[float, Within(0, 1, "[)")] = 0.2
    """By how much of an image's patches the share hidden differs from the target, at most. It is less where
    the most complex images would hide fewer than the anchors, or the simplest would show none."""
    simplicity: Literal["auto"] | QuantileTable = "auto"
    """Evenly spaced quantiles of the simplicity of images, in pairs (progress, quantiles) to interpolate;
    `auto` measures them on training images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.simplicity, str):
            return
        if not self.simplicity or list(self.simplicity) != sorted(self.simplicity):
            raise ValueError(f"simplicity must be a table in order of progress, got {self.simplicity}")
        if len({len(quantiles) for _, quantiles in self.simplicity}) > 1:
            raise ValueError(f"simplicity must have as many quantiles at all times, got {self.simplicity}")
        for _, quantiles in self.simplicity:
            if len(quantiles) < 2 or list(quantiles) != sorted(quantiles):
                raise ValueError(f"simplicity must have at least two quantiles, in order, got {quantiles}")

    @property
    def is_exact(self) -> bool:
        return False

    @property
    def is_changing(self) -> bool:
        return super().is_changing or (isinstance(self.simplicity, tuple) and len(self.simplicity) > 1)

    @property
    def is_calibrated(self) -> bool:
        return self.simplicity != "auto"

    def hidden(self, rows: AnchorRows, noise: Tensor, progress: float) -> Tensor:
        alpha, N = self.alpha(progress), noise.shape[1]
        rank = ranks(rows.simplicity(alpha), self.quantiles_at(progress))
        target = ratio_at(self.target_mask_ratio, progress)
        share = target + (2 * rank - 1) * self._spread(target, N)
        count = (share * N).round().clamp(self.num_anchors(N), N - 1)
        return hide_highest(rows.nearest(alpha), N - count[:, None], ties=noise)

    def quantiles_at(self, progress: float) -> tuple[float, ...]:
        """Evenly spaced quantiles of the simplicity of images at a progress."""
        if isinstance(self.simplicity, str):
            raise ValueError(
                f"simplicity is still {self.simplicity}: calibrate the mask before using it: "
                "mask = mask.calibrated([inputs], seed=0).mask, where inputs = MaskInputs.of(patches) of "
                "some 2,000 images"
            )
        moments = [moment for moment, _ in self.simplicity]
        levels = zip(*(quantiles for _, quantiles in self.simplicity), strict=True)
        return tuple(interpolate(list(zip(moments, level, strict=True)), progress) for level in levels)

    def calibrated(self, inputs: Iterable[MaskInputs], *, seed: int) -> Calibration:
        return self.recalibrated(inputs, progress=0.0, until=1.0, seed=seed)

    def recalibrated(
        self, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int
    ) -> Calibration:
        moments = knots(self.moments, progress, until)
        rows, noise = self.compare_all(inputs, alphas=[self.alpha(moment) for moment in moments], seed=seed)
        levels = torch.linspace(0, 1, NUM_PARTS + 1, device=noise.device)
        table = tuple(
            (moment, tuple(rows.simplicity(self.alpha(moment)).quantile(levels).tolist()))
            for moment in moments
        )
        mask = replace(self, simplicity=table)
        shares = mask.hidden(rows, noise, progress).float().mean(dim=1)
        return Calibration(mask, {"mask_ratio": shares.mean().item()} | quantiles_of(shares))

    def num_visible(self, num_patches: int) -> int:
        target = lowest_ratio(self.target_mask_ratio)  # the least share hidden grows with it
        least = round((target - self._spread(target, num_patches)) * num_patches)
        return num_patches - max(self.num_anchors(num_patches), least)

    def _spread(self, target: float, num_patches: int) -> float:
        """`spread`, as far as all images still hide their anchors and show a patch."""
        low, high = self.num_anchors(num_patches) / num_patches, 1 - 1 / num_patches
        return max(0.0, min(self.spread, target - low, high - target))


def ranks(values: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Share of a distribution that lies below each value, and half of what equals it: (B,) -> (B,) in [0, 1].

    Args:
        quantiles: evenly spaced ones of the distribution, which is even between two of them.
    """
    below = [
        ((values - low) / (high - low)).clamp(0, 1)
        if high > low
        else ((values > low).float() + (values >= low).float()) / 2
        for low, high in pairwise(quantiles)
    ]
    return torch.stack(below).mean(dim=0)
