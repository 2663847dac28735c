"""Attention masking: FLIP_Attn of arXiv:2405.08815 (section 4.1), after A-CLIP (arXiv:2212.08653)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Generator, Tensor

from vlp.core.config import AtLeast
from vlp.masking.cells import cells_per_side, mean_of_cells, patches_of_cells
from vlp.masking.schedule import Ratio, hidden_count, is_constant, lowest_ratio, ratio_at
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    MaskStrategy,
    View,
    hide_highest,
    uniform_noise,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class AttentionMask(MaskStrategy):
    """Hides the patches to which the class token attends least, judged by the current weights."""

    name: Literal["attention"] = "attention"
    formula: ClassVar[str] = "M = the r N patches of least attention"
    paper: ClassVar[str] = "2212.08653"
    mask_ratio: Ratio = 0.5
    """Share of patches hidden; a schedule makes it progressive."""
    cell_size: Annotated[int, AtLeast(1)] = 1
    """Side of the squares of patches that are judged by their mean attention and hidden whole; A-CLIP's 2."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"mask_ratio": self.mask_ratio}

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"attention"})

    @property
    def is_exact(self) -> bool:
        return is_constant(self.mask_ratio)

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        attention = mean_of_cells(inputs.attention, self.cell_size)
        visible = self._visible_cells(attention.shape[1], ratio_at(self.mask_ratio, progress))
        ties = uniform_noise(inputs, generator, attention.shape[1])
        return patches_of_cells(hide_highest(-attention, visible, ties=ties), self.cell_size)

    def counts(self, num_patches: int) -> Mapping[str, int]:
        return hidden_count(self.mask_ratio, num_patches - self.num_visible(num_patches))

    def num_visible(self, num_patches: int) -> int:
        num_cells = cells_per_side(num_patches, self.cell_size) ** 2
        return self._visible_cells(num_cells, lowest_ratio(self.mask_ratio)) * self.cell_size**2

    def _visible_cells(self, num_cells: int, mask_ratio: float) -> int:
        """Rounded down as in FLIP where a cell is a patch, and up as in A-CLIP where it is not."""
        return (
            visible_count(num_cells, mask_ratio)
            if self.cell_size == 1
            else num_cells - int(num_cells * mask_ratio)
        )
