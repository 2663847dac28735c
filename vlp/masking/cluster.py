"""Cluster masking (Wei et al., CVPR 2024, arXiv:2405.08815)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from vlp.core.config import Within
from vlp.masking.anchors import AnchorMask, interpolate
from vlp.masking.calibration import ThresholdTable, calibrate, recalibrate
from vlp.masking.schedule import Ratio, Schedule, is_constant, lowest_ratio, ratio_at
from vlp.masking.similarity import AnchorRows
from vlp.masking.strategy import STRATEGIES, Calibration, MaskInputs, hide_highest, visible_count


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class ClusterMask(AnchorMask):
    """Hides random anchor patches together with every patch that looks like one of them."""

    name: Literal["cluster"] = "cluster"
    formula: ClassVar[str] = (
        "M = A + {j: max over a in A of s(a, j) > t}, s = (1 - alpha) rgb + alpha embedding"
    )
    threshold: float | Literal["auto", "per_image"] | ThresholdTable = "auto"
    """Cosine similarity to an anchor above which a patch joins its cluster, in [-1, 1].
    `auto` searches the one that meets `target_mask_ratio`; where that or alpha changes with the training,
    the search gives a table of pairs (progress, threshold) to interpolate.
    `per_image` meets the target in every image, with a threshold of its own."""
    min_mask_ratio: Annotated[float, Within(0, 1, "[)")] = 0.5
    """Share of patches hidden at least; fixes the encoder's sequence length (the paper's beta)."""
    measure: Literal["raw", "floored"] = "raw"
    """Which mask ratio the search brings to the target: before or after `min_mask_ratio` cuts further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_measure()
        self._check_threshold()

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {**super().ratios, "min_mask_ratio": self.min_mask_ratio}

    @property
    def is_changing(self) -> bool:
        return super().is_changing or isinstance(self.threshold, tuple)

    @property
    def is_exact(self) -> bool:
        # The cut to min_mask_ratio is random, and so needs noise.
        target = lowest_ratio(self.target_mask_ratio)
        is_uncut = is_constant(self.target_mask_ratio) and target >= self.min_mask_ratio
        return self.threshold == "per_image" and is_uncut

    def hidden(self, rows: AnchorRows, noise: Tensor, progress: float) -> Tensor:
        similarity = rows.nearest(self.alpha(progress))
        if self.threshold == "per_image":
            visible = visible_count(noise.shape[1], ratio_at(self.target_mask_ratio, progress))
            return hide_highest(similarity, visible, ties=noise)  # fair among those that are no anchors
        return similarity > self.threshold_at(progress)

    @property
    def is_calibrated(self) -> bool:
        return self.threshold != "auto"

    def calibrated(self, inputs: Iterable[MaskInputs], *, seed: int) -> Calibration:
        found = calibrate(self, inputs, seed=seed)
        return Calibration(found.mask, found.metrics)

    def recalibrated(
        self, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int
    ) -> Calibration:
        found = recalibrate(self, inputs, progress=progress, until=until, seed=seed)
        return Calibration(found.mask, found.metrics)

    @property
    def moments(self) -> frozenset[float]:
        target = self.target_mask_ratio
        return super().moments | (target.knots if isinstance(target, Schedule) else frozenset())

    def state(self, progress: float) -> dict[str, float]:
        alpha = super().state(progress)
        return alpha if self.threshold == "per_image" else alpha | {"threshold": self.threshold_at(progress)}

    def threshold_at(self, progress: float) -> float:
        """The similarity above which a patch joins a cluster."""
        if isinstance(self.threshold, str):
            raise ValueError(
                f"threshold is still {self.threshold}: calibrate the mask before using it: "
                "mask = vlp.masking.calibrate(mask, [inputs]).mask, where inputs = MaskInputs.of(patches) of "
                "some 2,000 images"
            )
        return interpolate(self.threshold, progress) if isinstance(self.threshold, tuple) else self.threshold

    def counts(self, num_patches: int) -> Mapping[str, int]:
        cut = num_patches - visible_count(num_patches, self.min_mask_ratio)
        counts = {**super().counts(num_patches), "min_mask_ratio": cut}
        if self.threshold == "per_image" and is_constant(self.target_mask_ratio):
            target = visible_count(num_patches, lowest_ratio(self.target_mask_ratio))
            counts["target_mask_ratio"] = num_patches - target
        return counts

    @property
    def unused(self) -> frozenset[str]:
        unused = set(super().unused)
        if not isinstance(self.threshold, str):
            unused |= {"target_mask_ratio", "measure"}
        if self.threshold == "per_image":
            unused.add("measure")
        return frozenset(unused)

    def num_visible(self, num_patches: int) -> int:
        is_met = self.threshold == "per_image"
        target = lowest_ratio(self.target_mask_ratio) if is_met else 0.0
        return visible_count(num_patches, max(self.min_mask_ratio, target))

    def _check_measure(self) -> None:
        target = lowest_ratio(self.target_mask_ratio)
        if self.measure == "floored" and not self.min_mask_ratio < target:
            raise ValueError(
                f"target_mask_ratio must be above min_mask_ratio ({self.min_mask_ratio}) where measure is "
                f"floored: the cut alone hides as much whatever the threshold; got {target}"
            )

    def _check_threshold(self) -> None:
        if isinstance(self.threshold, str):
            return
        table = self.threshold if isinstance(self.threshold, tuple) else ((0.0, self.threshold),)
        if not table or list(table) != sorted(table):
            raise ValueError(f"threshold must be a table in order of progress, got {self.threshold}")
        for _, threshold in table:
            if not -1 <= threshold <= 1:
                raise ValueError(f"threshold must be auto, per_image or in [-1, 1], got {threshold}")
