"""What masks have in common that hide random anchors and what looks like one of them (arXiv:2405.08815)."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.core.config import Above, AtLeast, Within
from vlp.masking.schedule import EVENLY, Ratio, lowest_ratio
from vlp.masking.similarity import AnchorRows, compare_to_anchors
from vlp.masking.strategy import Choice, MaskInputs, MaskStrategy, View, uniform_noise


@dataclass(frozen=True, kw_only=True)
class AnchorMask(MaskStrategy):
    """Hides random anchor patches together with patches that look like one of them."""

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
    target_mask_ratio: Ratio = 0.5
    """Mean share of patches that anchors and clusters hide, in (0, 1); a schedule makes it progressive."""
    recalibrations: Annotated[int, AtLeast(0)] = 32
    """How often in the training, evenly spread, it is calibrated again where embeddings are compared: they
    change with the weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        target = lowest_ratio(self.target_mask_ratio)
        if not self.anchor_ratio < target:
            raise ValueError(
                f"target_mask_ratio must be above anchor_ratio ({self.anchor_ratio}): anchors are always "
                f"hidden; got {target}"
            )

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"target_mask_ratio": self.target_mask_ratio}

    @property
    def dials(self) -> Mapping[str, str]:
        dials = {"anchor_ratio": "anchor_ratio", "target_ratio": "target_mask_ratio"}
        return {dial: setting for dial, setting in dials.items() if setting not in self.unused}

    @property
    def is_changing(self) -> bool:
        return super().is_changing or self.feature == "mix"

    @property
    def views(self) -> frozenset[View]:
        return frozenset() if self.feature == "rgb" else frozenset({"tokens"})

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        noise = uniform_noise(inputs, generator)
        return self.hidden(self._rows(inputs, noise, progress), noise, progress)

    def explained(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Choice:
        noise = uniform_noise(inputs, generator)
        rows = self._rows(inputs, noise, progress)
        masked = self.hidden(rows, noise, progress)
        return Choice(masked, rows.anchors, rows.clusters(self.alpha(progress)).masked_fill(~masked, -1))

    def _rows(self, inputs: MaskInputs, noise: Tensor, progress: float) -> AnchorRows:
        alphas = [self.alpha(progress)]
        return compare_to_anchors(inputs, self.draw_anchors(noise), alphas=alphas, pixel_norm=self.pixel_norm)

    @abstractmethod
    def hidden(self, rows: AnchorRows, noise: Tensor, progress: float) -> Tensor:
        """Which patches are hidden, the anchors among them: (B, N) bool.

        Args:
            noise: (B, N) numbers in [0, 1), by which the anchors were drawn.
        """

    def recalibration_steps(self, steps: int) -> tuple[int, ...]:
        """None unless embeddings, which move with the weights, decide what is calibrated."""
        if self.is_calibrated or self.feature == "rgb":
            return ()
        return tuple(sorted({steps * i // self.recalibrations for i in range(1, self.recalibrations)}))

    def state(self, progress: float) -> dict[str, float]:
        return {"alpha": self.alpha(progress)} if self.feature == "mix" else {}

    def alpha(self, progress: float) -> float:
        """Share of the embeddings in the similarity; training starts with pixels alone (section 3.3)."""
        done = progress if self.alpha_shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return {"rgb": 0.0, "embedding": 1.0, "mix": done**self.alpha_power}[self.feature]

    @property
    def moments(self) -> frozenset[float]:
        """Shares of the training at which it is calibrated, beside the present one."""
        return frozenset(EVENLY if self.feature == "mix" else ())

    def draw_anchors(self, noise: Tensor) -> Tensor:
        """The patches of greatest noise: (B, N) in [0, 1) -> (B, anchors) int64."""
        return noise.topk(self.num_anchors(noise.shape[1]), dim=1).indices

    def num_anchors(self, num_patches: int) -> int:
        """Anchors per image, at least one."""
        return max(1, num_patches - int(num_patches * (1 - self.anchor_ratio)))

    def compare_all(
        self, inputs: Iterable[MaskInputs], *, alphas: Sequence[float], seed: int
    ) -> tuple[AnchorRows, Tensor]:
        """The similarities of all images to anchors that only the seed decides, and their noise (B, N)."""
        generator = torch.Generator().manual_seed(seed)
        parts, draws = [], []
        for images in inputs:
            noise = torch.rand(images.num_images, images.num_patches, generator=generator).to(images.device)
            anchors = self.draw_anchors(noise)
            draws.append(noise)
            parts.append(compare_to_anchors(images, anchors, alphas=alphas, pixel_norm=self.pixel_norm))
        anchors, rgb, embedding = (
            None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)
        )
        assert anchors is not None
        return AnchorRows(anchors, rgb, embedding), torch.cat(draws)

    def counts(self, num_patches: int) -> Mapping[str, int]:
        return {"anchor_ratio": self.num_anchors(num_patches)}

    @property
    def unused(self) -> frozenset[str]:
        unused = set[str]()
        if self.feature != "mix":
            unused |= {"alpha_power", "alpha_shape"}
        if self.feature == "embedding":
            unused.add("pixel_norm")
        if self.feature == "rgb" or self.is_calibrated:
            unused.add("recalibrations")
        return frozenset(unused)


def knots(moments: Iterable[float], progress: float, until: float) -> list[float]:
    """Where to calibrate: here, and as far as asked if there are moments at which anything changes."""
    found = {*moments}
    if found:
        found.add(until)
    return sorted({progress, *(moment for moment in found if progress < moment <= until)})


def interpolate(table: Sequence[tuple[float, float]], progress: float) -> float:
    """The table's value at a progress, linear between two entries and constant outside of them."""
    for (start, low), (end, high) in pairwise(table):
        if progress < end:
            share = max(0.0, (progress - start) / (end - start))
            return (1 - share) * low + share * high
    return table[-1][1]
