"""Block-wise masking of BEiT (arXiv:2106.08254, section 2.3), an ablation of SimMIM (arXiv:2111.09886)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.core.config import AtLeast, Within
from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import STRATEGIES, MaskInputs, grid_side, uniform_noise

MAX_TRIES = 64
"""Rectangles tried for an image at most; more would hardly hide more."""


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class BlockMask(ShareMask):
    """Hides random rectangles until the wanted share is met, or no further one fits."""

    name: Literal["block"] = "block"
    formula: ClassVar[str] = "M = rectangles of r N patches in all"
    paper: ClassVar[str] = "2106.08254"
    mask_ratio: Ratio = 0.4
    """Share of patches hidden at most; an image may fall some patches short of it.
    A schedule makes it progressive."""
    min_block: Annotated[int, AtLeast(1)] = 16
    """Area that a rectangle is drawn with at least, in patches; on small grids less, so that it fits."""
    min_aspect: Annotated[float, Within(0, 1, "(]")] = 0.3
    """Least ratio of a rectangle's sides; the greatest is its inverse."""
    max_failures: Annotated[int, AtLeast(1)] = 10
    """Rectangles in a row that may not fit before the image is left as it is."""

    @property
    def is_exact(self) -> bool:
        return False

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        N, side = inputs.num_patches, grid_side(inputs.num_patches)
        noise = uniform_noise(inputs, generator, 4 * MAX_TRIES).reshape(-1, MAX_TRIES, 4)
        masked = torch.zeros(inputs.num_images, N, dtype=torch.bool, device=inputs.device)
        quota = N - self.visible_at(N, ratio_at(self.mask_ratio, progress))
        remaining = torch.full_like(masked[:, 0], quota, dtype=torch.int64)
        min_block = min(self.min_block, quota, max(1, (side - 1) ** 2 // 2))  # half of the largest one
        failures = torch.zeros_like(remaining)
        for draw in noise.unbind(dim=1):
            rectangle = self.draw_rectangle(draw, remaining, side, min_block)
            added = (rectangle & ~masked).sum(dim=1)
            fits = (added > 0) & (added <= remaining) & (failures < self.max_failures)
            masked = masked | (rectangle & fits[:, None])
            remaining = remaining - added * fits
            failures = torch.where(fits, 0, failures + 1)
        return masked

    def draw_rectangle(self, noise: Tensor, remaining: Tensor, side: int, min_block: int) -> Tensor:
        """One rectangle per image, empty where it would span the image: (B, 4), (B,) -> (B, N) bool."""
        area = min_block + noise[:, 0] * (remaining - min_block)
        aspect = torch.exp((2 * noise[:, 1] - 1) * -math.log(self.min_aspect))
        size = torch.stack([area * aspect, area / aspect], dim=1).sqrt().round()  # (B, 2): rows, columns
        corner = (noise[:, 2:] * (side - size + 1)).floor()
        place = torch.arange(side, device=noise.device)
        inside = (place >= corner[:, :, None]) & (place < (corner + size)[:, :, None])  # (B, 2, side)
        inside &= (size < side).all(dim=1)[:, None, None]
        return (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1)

    def visible_at(self, num_patches: int, mask_ratio: float) -> int:
        return max(1, num_patches - round(num_patches * mask_ratio))
