"""Cluster masking (Wei et al., CVPR 2024, arXiv:2405.08815)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from torch import Generator, Tensor

from vlp.core.config import Above, AtLeast, Within
from vlp.masking.calibration import ThresholdTable, calibrate, recalibrate
from vlp.masking.schedule import Ratio, is_constant, lowest_ratio, ratio_at
from vlp.masking.similarity import AnchorRows, compare_to_anchors
from vlp.masking.strategy import (
    STRATEGIES,
    Calibration,
    Choice,
    MaskInputs,
    MaskStrategy,
    View,
    hide_highest,
    uniform_noise,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class ClusterMask(MaskStrategy):
    """Hides random anchor patches together with every patch that looks like one of them."""

    name: Literal["cluster"] = "cluster"
    formula: ClassVar[str] = (
        "M = A + {j: max over a in A of s(a, j) > t}, s = (1 - alpha) rgb + alpha embedding"
    )
    paper: ClassVar[str] = "2405.08815"
    variants: ClassVar[str] = "feature"
    anchor_ratio: Annotated[float, Within(0, 1, "()")] = 0.03
    """Share of patches drawn as anchors."""
    feature: Literal["rgb", "embedding", "mix"] = "rgb"
    """What is compared: pixels, embedded patches with their positions, or both, with the share alpha of the
    embeddings growing from 0 to 1 over the training."""
    alpha_power: Annotated[float, Above(0)] = 1.0
    """alpha = progress ** alpha_power (the paper's k); only the mix has it."""
    alpha_shape: Literal["linear", "cosine"] = "linear"
    """How the progress of which alpha is a power goes over the training: as the steps do, or slower at both
    ends, by half a wave of the cosine."""
    pixel_norm: bool = True
    """Give every patch zero mean and unit variance before pixels are compared."""
    threshold: float | Literal["auto", "per_image"] | ThresholdTable = "auto"
    """Cosine similarity to an anchor above which a patch joins its cluster, in [-1, 1].
    `auto` searches the one that meets `target_mask_ratio`; where that or alpha changes with the training,
    the search gives a table of pairs (progress, threshold) to interpolate.
    `per_image` meets the target in every image, with a threshold of its own."""
    target_mask_ratio: Ratio = 0.5
    """Mean share of patches that anchors and clusters hide, in (0, 1); a schedule makes it progressive."""
    min_mask_ratio: Annotated[float, Within(0, 1, "[)")] = 0.5
    """Share of patches hidden at least; fixes the encoder's sequence length (the paper's beta)."""
    recalibrations: Annotated[int, AtLeast(0)] = 32
    """How often in the training, evenly spread, `auto` searches again where embeddings are compared: they
    change with the weights."""
    measure: Literal["raw", "floored"] = "raw"
    """Which mask ratio the search brings to the target: before or after `min_mask_ratio` cuts further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_target()
        self._check_threshold()

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"target_mask_ratio": self.target_mask_ratio, "min_mask_ratio": self.min_mask_ratio}

    @property
    def dials(self) -> Mapping[str, str]:
        dials = {"anchor_ratio": "anchor_ratio", "target_ratio": "target_mask_ratio"}
        return {dial: setting for dial, setting in dials.items() if setting not in self.unused}

    @property
    def is_changing(self) -> bool:
        return super().is_changing or self.feature == "mix" or isinstance(self.threshold, tuple)

    @property
    def views(self) -> frozenset[View]:
        return frozenset() if self.feature == "rgb" else frozenset({"tokens"})

    @property
    def is_exact(self) -> bool:
        # The cut to min_mask_ratio is random, and so needs noise.
        target = lowest_ratio(self.target_mask_ratio)
        is_uncut = is_constant(self.target_mask_ratio) and target >= self.min_mask_ratio
        return self.threshold == "per_image" and is_uncut

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        noise = uniform_noise(inputs, generator)
        return self._hidden(self._rows(inputs, noise, progress), noise, progress)

    def explained(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Choice:
        noise = uniform_noise(inputs, generator)
        rows = self._rows(inputs, noise, progress)
        masked = self._hidden(rows, noise, progress)
        return Choice(masked, rows.anchors, rows.clusters(self.alpha(progress)).masked_fill(~masked, -1))

    def _rows(self, inputs: MaskInputs, noise: Tensor, progress: float) -> AnchorRows:
        alphas = [self.alpha(progress)]
        return compare_to_anchors(inputs, self.draw_anchors(noise), alphas=alphas, pixel_norm=self.pixel_norm)

    def _hidden(self, rows: AnchorRows, noise: Tensor, progress: float) -> Tensor:
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

    def recalibration_steps(self, steps: int) -> tuple[int, ...]:
        """None unless embeddings, which move with the weights, decide a threshold that is searched."""
        if self.is_calibrated or self.feature == "rgb":
            return ()
        return tuple(sorted({steps * i // self.recalibrations for i in range(1, self.recalibrations)}))

    def recalibrated(
        self, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int
    ) -> Calibration:
        found = recalibrate(self, inputs, progress=progress, until=until, seed=seed)
        return Calibration(found.mask, found.metrics)

    def state(self, progress: float) -> dict[str, float]:
        alpha = {"alpha": self.alpha(progress)} if self.feature == "mix" else {}
        return alpha if self.threshold == "per_image" else alpha | {"threshold": self.threshold_at(progress)}

    def alpha(self, progress: float) -> float:
        """Share of the embeddings in the similarity; training starts with pixels alone (section 3.3)."""
        done = progress if self.alpha_shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return {"rgb": 0.0, "embedding": 1.0, "mix": done**self.alpha_power}[self.feature]

    def threshold_at(self, progress: float) -> float:
        """The similarity above which a patch joins a cluster."""
        if isinstance(self.threshold, str):
            raise ValueError(
                f"threshold is still {self.threshold}: calibrate the mask before using it: "
                "mask = vlp.masking.calibrate(mask, [inputs]).mask, where inputs = MaskInputs.of(patches) of "
                "some 2,000 images"
            )
        return interpolate(self.threshold, progress) if isinstance(self.threshold, tuple) else self.threshold

    def draw_anchors(self, noise: Tensor) -> Tensor:
        """The patches of greatest noise: (B, N) in [0, 1) -> (B, anchors) int64."""
        return noise.topk(self.num_anchors(noise.shape[1]), dim=1).indices

    def num_anchors(self, num_patches: int) -> int:
        """Anchors per image, at least one."""
        return max(1, num_patches - int(num_patches * (1 - self.anchor_ratio)))

    def counts(self, num_patches: int) -> Mapping[str, int]:
        cut = num_patches - visible_count(num_patches, self.min_mask_ratio)
        counts = {"anchor_ratio": self.num_anchors(num_patches), "min_mask_ratio": cut}
        if self.threshold == "per_image" and is_constant(self.target_mask_ratio):
            target = visible_count(num_patches, lowest_ratio(self.target_mask_ratio))
            counts["target_mask_ratio"] = num_patches - target
        return counts

    @property
    def unused(self) -> frozenset[str]:
        unused = set[str]()
        if self.feature != "mix":
            unused |= {"alpha_power", "alpha_shape"}
        if self.feature == "embedding":
            unused.add("pixel_norm")
        if self.feature == "rgb" or self.is_calibrated:
            unused.add("recalibrations")
        if not isinstance(self.threshold, str):
            unused |= {"target_mask_ratio", "measure"}
        if self.threshold == "per_image":
            unused.add("measure")
        return frozenset(unused)

    def num_visible(self, num_patches: int) -> int:
        is_met = self.threshold == "per_image"
        target = lowest_ratio(self.target_mask_ratio) if is_met else 0.0
        return visible_count(num_patches, max(self.min_mask_ratio, target))

    def _check_target(self) -> None:
        target = lowest_ratio(self.target_mask_ratio)
        if not self.anchor_ratio < target:
            raise ValueError(
                f"target_mask_ratio must be above anchor_ratio ({self.anchor_ratio}): anchors are always "
                f"hidden; got {target}"
            )
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


def interpolate(table: ThresholdTable, progress: float) -> float:
    """The table's threshold at a progress, linear between two entries and constant outside of them."""
    for (start, low), (end, high) in pairwise(table):
        if progress < end:
            share = max(0.0, (progress - start) / (end - start))
            return (1 - share) * low + share * high
    return table[-1][1]
