"""Random cells of several patches, as in SimMIM (arXiv:2111.09886, section 3.2)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Generator, Tensor

from vlp.core.config import AtLeast
from vlp.masking.cells import cells_per_side, patches_of_cells
from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    hide_highest,
    uniform_noise,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class GridMask(ShareMask):
    """Divides each image into square cells and hides a random choice of them."""

    name: Literal["grid"] = "grid"
    formula: ClassVar[str] = "M = r of the cells at random"
    paper: ClassVar[str] = "2111.09886"
    mask_ratio: Ratio = 0.6
    """Share of cells hidden, rounded up to whole cells; a schedule makes it progressive."""
    cell_size: Annotated[int, AtLeast(1)] = 2
    """Side of a cell, in patches. SimMIM's cells of 32 pixels are 2 patches of ViT-B/16 and 8 of Swin."""

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        num_cells = cells_per_side(inputs.num_patches, self.cell_size) ** 2
        visible = self._visible_cells(num_cells, ratio_at(self.mask_ratio, progress))
        hidden = hide_highest(uniform_noise(inputs, generator, num_cells), visible)
        return patches_of_cells(hidden, self.cell_size)

    def visible_at(self, num_patches: int, mask_ratio: float) -> int:
        num_cells = cells_per_side(num_patches, self.cell_size) ** 2
        return self._visible_cells(num_cells, mask_ratio) * self.cell_size**2

    def _visible_cells(self, num_cells: int, mask_ratio: float) -> int:
        """Cells left by a mask ratio, whose product is rounded up as in SimMIM; never 0."""
        return max(1, num_cells - math.ceil(num_cells * mask_ratio))
