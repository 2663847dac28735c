"""Attention masking: FLIP_Attn of arXiv:2405.08815 (section 4.1), after A-CLIP (arXiv:2212.08653)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Generator, Tensor

from vlp.core.config import AtLeast
from vlp.masking.cells import cells_per_side, mean_of_cells, patches_of_cells
from vlp.masking.schedule import ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    View,
    hide_highest,
    uniform_noise,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class AttentionMask(ShareMask):
    """Hides the patches to which the class token attends least, judged by the current weights."""

    name: Literal["attention"] = "attention"
    formula: ClassVar[str] = "M = the r N patches of least attention"
    paper: ClassVar[str] = "2212.08653"
    cell_size: Annotated[int, AtLeast(1)] = 1
    """Side of the squares of patches that are judged by their mean attention and hidden whole; A-CLIP's 2."""

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"attention"})

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        attention = mean_of_cells(inputs.attention, self.cell_size)
        visible = self._visible_cells(attention.shape[1], ratio_at(self.mask_ratio, progress))
        ties = uniform_noise(inputs, generator, attention.shape[1])
        return patches_of_cells(hide_highest(-attention, visible, ties=ties), self.cell_size)

    def visible_at(self, num_patches: int, mask_ratio: float) -> int:
        num_cells = cells_per_side(num_patches, self.cell_size) ** 2
        return self._visible_cells(num_cells, mask_ratio) * self.cell_size**2

    def _visible_cells(self, num_cells: int, mask_ratio: float) -> int:
        """Rounded down as in FLIP where a cell is a patch, and up as in A-CLIP where it is not."""
        return (
            visible_count(num_cells, mask_ratio)
            if self.cell_size == 1
            else num_cells - int(num_cells * mask_ratio)
        )
