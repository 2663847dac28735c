"""Uniform random masking, as in MAE (arXiv:2111.06377) and FLIP (arXiv:2212.00794)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from vlp.masking.strategy import STRATEGIES, MaskInputs, MaskStrategy, uniform_noise, visible_count


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class RandomMask(MaskStrategy):
    """Hides the same share of patches in every image, each patch equally likely."""

    name: Literal["random"] = "random"
    mask_ratio: float = 0.5
    """Share of patches hidden, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in [0, 1), got {self.mask_ratio}")

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        order = uniform_noise(inputs, generator).argsort(dim=1)
        hidden = order[:, self.num_visible(inputs.num_patches) :]
        return torch.zeros_like(order, dtype=torch.bool).scatter(1, hidden, True)

    def num_visible(self, num_patches: int) -> int:
        return visible_count(num_patches, self.mask_ratio)
