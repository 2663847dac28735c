"""One square at a random place, an ablation of SimMIM (arXiv:2111.09886, section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.masking.schedule import Ratio, hidden_count, highest_ratio, is_constant, lowest_ratio, ratio_at
from vlp.masking.strategy import STRATEGIES, MaskInputs, MaskStrategy, grid_side, uniform_noise


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class SquareMask(MaskStrategy):
    """Hides one square, anywhere in the image."""

    name: Literal["square"] = "square"
    formula: ClassVar[str] = "M = one square of r N patches"
    paper: ClassVar[str] = "2111.09886"
    mask_ratio: Ratio = 0.25
    """Share of the image that the square covers, its side rounded to whole patches;
    a schedule makes it progressive."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"mask_ratio": self.mask_ratio}

    @property
    def is_exact(self) -> bool:
        return is_constant(self.mask_ratio)

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        side = grid_side(inputs.num_patches)
        size = square_side(side, ratio_at(self.mask_ratio, progress))
        corner = (uniform_noise(inputs, generator, 2) * (side - size + 1)).long()
        place = torch.arange(side, device=inputs.device)
        inside = (place >= corner[:, :, None]) & (place < corner[:, :, None] + size)  # (B, 2, side)
        return (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1)

    def hides_any(self, num_patches: int) -> bool:
        return square_side(grid_side(num_patches), highest_ratio(self.mask_ratio)) > 0

    def counts(self, num_patches: int) -> Mapping[str, int]:
        return hidden_count(self.mask_ratio, num_patches - self.num_visible(num_patches))

    def num_visible(self, num_patches: int) -> int:
        return num_patches - square_side(grid_side(num_patches), lowest_ratio(self.mask_ratio)) ** 2


def square_side(side: int, mask_ratio: float) -> int:
    """Side of the square that covers a share of the image, in patches; it never covers all."""
    return min(side - 1, round(side * mask_ratio**0.5))
