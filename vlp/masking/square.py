"""One square at a random place, an ablation of SimMIM (arXiv:2111.09886, section 4.1)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import STRATEGIES, MaskInputs, grid_side, uniform_noise


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class SquareMask(ShareMask):
    """Hides one square, anywhere in the image."""

    name: Literal["square"] = "square"
    formula: ClassVar[str] = "M = one square of r N patches"
    paper: ClassVar[str] = "2111.09886"
    mask_ratio: Ratio = 0.25
    """Share of the image that the square covers, its side rounded to whole patches;
    a schedule makes it progressive."""

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        side = grid_side(inputs.num_patches)
        size = square_side(side, ratio_at(self.mask_ratio, progress))
        corner = (uniform_noise(inputs, generator, 2) * (side - size + 1)).long()
        place = torch.arange(side, device=inputs.device)
        inside = (place >= corner[:, :, None]) & (place < corner[:, :, None] + size)  # (B, 2, side)
        return (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1)

    def visible_at(self, num_patches: int, mask_ratio: float) -> int:
        return num_patches - square_side(grid_side(num_patches), mask_ratio) ** 2


def square_side(side: int, mask_ratio: float) -> int:
    """Side of the square that covers a share of the image, in patches; it never covers all."""
    return min(side - 1, round(side * mask_ratio**0.5))
