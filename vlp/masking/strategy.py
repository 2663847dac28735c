"""What a masking strategy is, and how its choice becomes the encoder's input."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from vlp.core.config import StrictConfig
from vlp.core.distributed import rows_of_global_draw
from vlp.core.registry import Registry
from vlp.core.seeds import mix_seeds
from vlp.masking.schedule import Ratio, highest_ratio, is_constant

STRATEGIES = Registry()
Compute = Callable[[], Tensor]
View = Literal["patches", "tokens", "attention"]
"""What a strategy may look at: pixels, embedded patches, or the class token's attention."""


class MaskInputs:
    """What a strategy may look at; a view is computed only when it is asked for."""

    def __init__(
        self,
        size: tuple[int, int],
        device: torch.device,
        *,
        patches: Compute,
        tokens: Compute | None = None,
        attention: Compute | None = None,
    ) -> None:
        self.num_images, self.num_patches = size
        self.device = device
        self._patches, self._tokens, self._attention = patches, tokens, attention
        self._kept: dict[str, Tensor] = {}

    @classmethod
    def of(
        cls, patches: Tensor, *, tokens: Tensor | None = None, attention: Tensor | None = None
    ) -> "MaskInputs":
        """Inputs that are known already: (B, N, P), and (B, N, D) and (B, N) where a strategy needs them."""
        return cls(
            (patches.shape[0], patches.shape[1]),
            patches.device,
            patches=lambda: patches,
            tokens=None if tokens is None else lambda: tokens,
            attention=None if attention is None else lambda: attention,
        )

    @property
    def patches(self) -> Tensor:
        """(B, N, P) normalized pixels, row by row from the top left."""
        return self._patches()

    @property
    def tokens(self) -> Tensor:
        """(B, N, D) embedded patches with their positions, detached."""
        if self._tokens is None:
            raise ValueError("the mask compares embedded patches, but this image encoder offers none")
        return self._tokens()

    @property
    def attention(self) -> Tensor:
        """(B, N) the class token's attention in the last block, mean over heads, detached."""
        if self._attention is None:
            raise ValueError(
                "the mask reads attention, but this image encoder has no class token to read it from"
            )
        return self._attention()

    def kept(self, name: str, compute: Compute) -> Tensor:
        """What follows from the views alone, computed when it is first asked for by its name."""
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]


@dataclass(frozen=True, kw_only=True)
class MaskStrategy(ABC, StrictConfig):
    """Chooses which patches of each image are hidden from the encoder."""

    name: str
    """Which mask it is."""
    formula: ClassVar[str] = ""
    """What is hidden, in plain text."""
    paper: ClassVar[str] = ""
    """Number of the paper on arXiv."""
    variants: ClassVar[str] = ""
    """The setting whose choices are masks of their own, where there is one: they look at different things."""

    @property
    def views(self) -> frozenset[View]:
        """What it looks at beside the pixels; an image encoder has to offer these."""
        return frozenset()

    @property
    def is_exact(self) -> bool:
        """Whether every image shows exactly `num_visible` patches, so that no slot is ever padding."""
        return True

    @abstractmethod
    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        """Hide patches of every image.

        Args:
            inputs: the images' patches, N per image.
            progress: share of the training that is done, in [0, 1).
            generator: source of randomness, on the device of the inputs; seeded alike on every worker.

        Returns:
            (B, N) bool, True where a patch is hidden.
        """

    def explained(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> "Choice":
        """The same choice, with what it was made by; to be shown."""
        return Choice(self(inputs, progress=progress, generator=generator))

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """Every share of the patches that it hides at some time, by the setting that says so."""
        return {}

    @property
    def dials(self) -> Mapping[str, str]:
        """The settings to turn when one wants to see what it does, by what they are of any mask:
        `target_ratio`, the share of the patches that is to be hidden, and `anchor_ratio`, that of anchors."""
        return {"target_ratio": "mask_ratio"} if "mask_ratio" in self.ratios else {}

    @property
    def is_changing(self) -> bool:
        """Whether what it hides depends on how far the training is."""
        return not all(map(is_constant, self.ratios.values()))

    def counts(self, num_patches: int) -> Mapping[str, int]:
        """What its shares come to of so many patches, by setting: masks that differ in them alone, and not in
        what they come to, are the same mask."""
        return {}

    @property
    def unused(self) -> frozenset[str]:
        """Settings that decide nothing beside the others as they are."""
        return frozenset()

    @property
    def is_calibrated(self) -> bool:
        """Whether it can be used as it is; if not, `calibrated` gives one that can."""
        return True

    def calibrated(self, inputs: Iterable[MaskInputs], *, seed: int) -> "Calibration":
        """What becomes of it on training images, by the weights that training starts from.

        Args:
            inputs: at least 2,000 images in all.

        Raises:
            ValueError: what it is asked for cannot be met on these images; the message says what can.
        """
        return Calibration(self, {})

    def recalibration_steps(self, steps: int) -> tuple[int, ...]:
        """Before which of so many steps it wants to be calibrated again, by the weights of the moment."""
        return ()

    def recalibrated(
        self, inputs: Iterable[MaskInputs], *, progress: float, until: float, seed: int
    ) -> "Calibration":
        """What becomes of it in the middle of the training, for a part of it.

        Args:
            progress: share of the training that is done, in [0, 1).
            until: where the next calibration follows, in (progress, 1].
        """
        return Calibration(self, {})

    def state(self, progress: float) -> dict[str, float]:
        """What of the strategy changes with the training, by name, to be logged."""
        return {}

    def check(self, num_patches: int) -> None:
        """Raise a ValueError that names the setting unless some of so many patches stay visible."""
        self.num_visible(num_patches)  # raises where the patches do not divide as the mask needs
        for key, changing in self.ratios.items():
            ratio = highest_ratio(changing)
            visible = num_patches * (1 - ratio)
            if visible < 1 - 1e-9:
                highest = math.floor(1000 * (1 - 1 / num_patches)) / 1000
                raise ValueError(
                    f"{key} {ratio:g} leaves no patch: {num_patches} x (1 - {ratio:g}) = {visible:.2g}; "
                    f"set it to {highest:g} at most, or choose smaller patches"
                )

    def hides_any(self, num_patches: int) -> bool:
        """Whether it can hide any of so many patches, at some time in the training."""
        return not self.is_exact or self.num_visible(num_patches) < num_patches

    @abstractmethod
    def num_visible(self, num_patches: int) -> int:
        """V, the upper bound on one image's visible patches.

        Known before any image is seen, so the encoder's input keeps a static shape.
        """


class Choice(NamedTuple):
    """What a strategy hides, and why."""

    masked: Tensor
    """(B, N) bool, True where hidden."""
    anchors: Tensor | None = None
    """(B, A) int64, the patches that clusters are made around; None where there are none."""
    clusters: Tensor | None = None
    """(B, N) int64, the cluster that each patch is in; -1 for a patch of none, None where there are none."""


class Calibration(NamedTuple):
    """A strategy that can be used, and what it does to the images that it was calibrated on."""

    mask: MaskStrategy
    metrics: dict[str, float]
    """To be logged, by name."""


class Slots(NamedTuple):
    """The places of the visible patches in the encoder's input."""

    keep_indices: Tensor
    """(B, V) int64 positions in 0..N-1, ascending among the visible."""
    is_padding: Tensor | None
    """(B, V) bool, True for a slot that no visible patch filled; None where every slot is filled."""

    def masked(self, num_patches: int) -> Tensor:
        """What the encoder does not see of so many patches, those cut away included: (B, N) bool."""
        keep_indices, is_padding = self
        hidden = torch.ones(len(keep_indices), num_patches, dtype=torch.bool, device=keep_indices.device)
        is_hidden = torch.zeros_like(keep_indices, dtype=torch.bool) if is_padding is None else is_padding
        return hidden.scatter(1, keep_indices, is_hidden)


def uniform_noise(inputs: MaskInputs, generator: Generator | None, count: int | None = None) -> Tensor:
    """Numbers in [0, 1) for each image, as many as it has patches unless a count is given: (B, N)."""
    shape = (inputs.num_images, inputs.num_patches if count is None else count)
    return rows_of_global_draw(shape, inputs.device, generator)


def hide_highest(scores: Tensor, num_visible: int | Tensor, *, ties: Tensor | None = None) -> Tensor:
    """Hide all but the lowest scores of each row: (B, N) -> (B, N) bool.

    Args:
        num_visible: how many, of all rows or (B, 1) of each.
        ties: (B, N) noise that decides between equal scores, as flat images have; None where the scores are
            noise themselves.
    """
    if ties is None:
        order = scores.argsort(dim=1, stable=True)
    else:
        shuffled = ties.argsort(dim=1)
        order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, stable=True))
    is_high = torch.arange(scores.shape[1], device=scores.device) >= num_visible
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, is_high.expand_as(order))


def mean_visible(mask: MaskStrategy, inputs: Iterable[MaskInputs], *, seed: int) -> float:
    """Patches of an image that the encoder sees after the cut, in the mean over images and the training."""
    parts, seen, num_images = 8, 0, 0
    for batch in inputs:
        slots = mask.num_visible(batch.num_patches)
        for part in range(parts):
            generator = Generator(batch.device).manual_seed(mix_seeds(seed, num_images, part))
            masked = mask(batch, progress=(part + 0.5) / parts, generator=generator)
            seen += int((~masked).sum(dim=1).clamp(1, slots).sum())
        num_images += batch.num_images
    return seen / (parts * num_images)


def grid_side(num_patches: int) -> int:
    """Patches per side of the image."""
    side = isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"the mask needs a square grid of patches, got {num_patches} patches")
    return side


def visible_count(num_patches: int, mask_ratio: float) -> int:
    """Patches left by a mask ratio: the product is truncated as in MAE and FLIP, and never 0."""
    return max(1, int(num_patches * (1 - mask_ratio)))


def visible_slots(masked: Tensor, num_visible: int, noise: Tensor | None = None) -> Slots:
    """Pack each image's visible patches into `num_visible` slots.

    An image with more visible patches than slots loses a uniformly random choice of them, one with fewer
    gets padding. One slot is always real: an image that is hidden entirely shows one random patch.

    Args:
        masked: (B, N) bool, True where hidden.
        num_visible: V, the number of slots.
        noise: (B, N) numbers in [0, 1) that decide the cut; None if `masked` shows exactly V everywhere.
    """
    if noise is None:
        keep_indices = masked.to(torch.uint8).argsort(dim=1, stable=True)[:, :num_visible]
        return Slots(keep_indices, None)
    N = masked.shape[1]
    chosen = (noise + masked).argsort(dim=1)[:, :num_visible]  # the visible first, in random order
    is_padding = masked.gather(1, chosen)
    is_padding[:, 0] = False
    order = (chosen + N * is_padding).argsort(dim=1)
    return Slots(chosen.gather(1, order), is_padding.gather(1, order))
