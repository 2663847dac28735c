"""What masks do at every setting of a grid, from which a page with sliders chooses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlp.core.seeds import mix_seeds
from vlp.masking import MaskInputs, MaskStrategy, visible_slots
from vlp.masking.distance import distance_of_patches
from vlp.masking.strategy import Choice, uniform_noise

DIALS: Mapping[str, tuple[float | None, ...]] = {
    "anchor_ratio": (None, 0.01, 0.05, 0.1, 0.2),
    "target_ratio": (None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
"""What is tried of each dial; None is what the mask itself is set to."""
MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_SEEDS = 3
END = 1 - 1e-6
"""The last moment of a training, as a share that is below 1."""
CALIBRATION_DRAWS = 3
"""How often each image is drawn on where a threshold is searched, so that few images give a steady one."""


class Look(NamedTuple):
    """A mask at work on some images."""

    choice: Choice
    hidden: Tensor
    """(B, N) bool, what the encoder does not see, after the cut to its slots."""


def look(mask: MaskStrategy, inputs: MaskInputs, *, progress: float = 0.0, seed: int = 0) -> Look:
    """What a mask hides and why, by one draw of its noise."""
    generator = torch.Generator(inputs.device).manual_seed(mix_seeds(seed, 0))
    choice = mask.explained(inputs, progress=progress, generator=generator)
    noise = None if mask.is_exact else uniform_noise(inputs, generator)
    slots = visible_slots(choice.masked, mask.num_visible(inputs.num_patches), noise)
    return Look(choice, slots.masked(inputs.num_patches))


class Setting(NamedTuple):
    """One place of the grid."""

    anchor_ratio: float | None
    target_ratio: float | None
    progress: float
    """Share of the training that is done, in [0, 1)."""


def set_to(mask: MaskStrategy, setting: Setting) -> MaskStrategy:
    """The mask with its dials at a setting.

    Raises:
        ValueError: it cannot be set so.
    """
    dials = {dial: getattr(setting, dial) for dial in mask.dials}
    return replace(mask, **{mask.dials[dial]: value for dial, value in dials.items() if value is not None})


def ready_at(mask: MaskStrategy, inputs: MaskInputs, progress: float) -> MaskStrategy:
    """The mask as it is used at a moment: a threshold that is searched is searched on these images.

    Raises:
        ValueError: it leaves no patch of so many.
    """
    mask.check(inputs.num_patches)
    if mask.is_calibrated:
        return mask
    images = [inputs] * CALIBRATION_DRAWS
    return mask.recalibrated(images, progress=progress, until=progress + (1 - END), seed=0).mask


@dataclass(frozen=True)
class MaskGrid:
    """A mask at all settings that make a difference to it, by moments within targets within anchors."""

    settings: tuple[Setting, ...]
    sizes: tuple[int, int, int]
    """Settings of the anchors, the target and the moment; 1 where the mask has no such dial."""
    looks: tuple[tuple[Look, ...], ...]
    """At each setting, by each seed; none where the mask cannot be set so."""
    notes: tuple[str, ...]
    """What is worth knowing of each setting: numbers that follow from it, or why it cannot be."""
    distances: tuple[float, ...]
    """AvgDist of what is hidden at each setting, in pixels: the mean over images, by the first seed; NaN for
    none."""

    def ratios(self) -> list[float]:
        """Mean share of the patches that is hidden at each setting; NaN where the mask cannot be set so."""
        return [
            torch.stack([one.hidden for one in looks]).float().mean().item() if looks else float("nan")
            for looks in self.looks
        ]

    def at(self, progress: float) -> list[int]:
        """The settings of all targets, the others as the mask itself has them, at the nearest moment."""
        _, targets, moments = self.sizes
        times = [self.settings[place].progress for place in range(moments)]
        nearest = min(range(moments), key=lambda place: abs(times[place] - progress))
        return [target * moments + nearest for target in range(targets)]


def mask_grid(mask: MaskStrategy, inputs: MaskInputs, *, patch_size: int, seed: int = 0) -> MaskGrid:
    """Try a mask at every setting.

    Args:
        inputs: few images; the views that the mask looks at are computed once.
        seed: the first of some that follow each other.
    """
    inputs = MaskInputs.of(inputs.patches, **{view: getattr(inputs, view) for view in mask.views})
    anchors, targets = (DIALS[dial] if dial in mask.dials else (None,) for dial in DIALS)
    moments = tuple(min(END, moment) for moment in MOMENTS) if mask.is_changing else (0.0,)
    settings = tuple(Setting(*values) for values in product(anchors, targets, moments))
    with one_thread():
        looks, notes = zip(*_tried(mask, settings, inputs, seed), strict=True)
        first = [seeds[0].hidden if seeds else None for seeds in looks]
        distances = tuple(
            float("nan") if hidden is None else distance_of_patches(hidden, patch_size).mean().item()
            for hidden in first
        )
    return MaskGrid(settings, (len(anchors), len(targets), len(moments)), looks, notes, distances)


@contextmanager
def one_thread() -> Iterator[None]:
    """What is computed within is too little for threads, which would wait for each other."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _tried(
    mask: MaskStrategy, settings: tuple[Setting, ...], inputs: MaskInputs, seed: int
) -> Iterator[tuple[tuple[Look, ...], str]]:
    found: dict[tuple[MaskStrategy, float], tuple[tuple[Look, ...], str]] = {}  # a stop may be the mask's own
    for setting in settings:
        progress = setting.progress
        try:
            key = set_to(mask, setting), progress
            if key not in found:
                ready = ready_at(key[0], inputs, progress)
                draws = range(seed, seed + NUM_SEEDS)
                looks = tuple(look(ready, inputs, progress=progress, seed=draw) for draw in draws)
                state = ready.state(progress).items()
                found[key] = looks, ", ".join(f"{name} {value:.3g}" for name, value in state)
        except ValueError as error:
            yield (), str(error)
        else:
            yield found[key]


def bits(rows: Tensor) -> np.ndarray:
    """Eight to a byte, the first lowest, each image in bytes of its own: (B, N) bool -> (B, N / 8) uint8."""
    return np.packbits(rows.numpy(), axis=1, bitorder="little")
