"""What a masking strategy is, and how its choice becomes the encoder's input."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from vlp.config import StrictConfig
from vlp.distributed import rank, world_size
from vlp.registry import Registry

STRATEGIES = Registry()


class MaskInputs:
    """What a strategy may look at; a view is computed only when it is asked for."""

    def __init__(self, size: tuple[int, int], device: torch.device, *, patches: Callable[[], Tensor]) -> None:
        self.num_images, self.num_patches = size
        self.device = device
        self._compute_patches = patches

    @classmethod
    def of(cls, patches: Tensor) -> "MaskInputs":
        """Inputs that are known already: (B, N, P)."""
        return cls((patches.shape[0], patches.shape[1]), patches.device, patches=lambda: patches)

    @cached_property
    def patches(self) -> Tensor:
        """(B, N, P) normalized pixels, row by row from the top left."""
        return self._compute_patches()


@dataclass(frozen=True, kw_only=True)
class MaskStrategy(ABC, StrictConfig):
    """Chooses which patches of each image are hidden from the encoder."""

    name: str

    is_exact: ClassVar[bool] = True
    """Whether every image shows exactly `num_visible` patches, so that no slot is ever padding."""

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

    @abstractmethod
    def num_visible(self, num_patches: int) -> int:
        """V, the upper bound on one image's visible patches.

        Known before any image is seen, so the encoder's input keeps a static shape.
        """


class Slots(NamedTuple):
    """The places of the visible patches in the encoder's input."""

    keep_indices: Tensor
    """(B, V) int64 positions in 0..N-1, ascending among the visible."""
    is_padding: Tensor | None
    """(B, V) bool, True for a slot that no visible patch filled; None where every slot is filled."""


def uniform_noise(inputs: MaskInputs, generator: Generator | None) -> Tensor:
    """One number in [0, 1) per patch: (B, N).

    It is this worker's rows of one draw for the whole global batch, so the masks do not depend on how
    many workers share it.
    """
    B = inputs.num_images
    shape = (B * world_size(), inputs.num_patches)
    draw = torch.rand(shape, device=inputs.device, generator=generator)
    return draw[rank() * B : (rank() + 1) * B]


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
