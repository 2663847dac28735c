"""Attention masking: FLIP_Attn of arXiv:2405.08815 (section 4.1), after A-CLIP (arXiv:2212.08653)."""

from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor

from vlp.masking.schedule import Ratio, check_ratio, is_constant, lowest_ratio, ratio_at
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    MaskStrategy,
    View,
    hide_highest,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class AttentionMask(MaskStrategy):
    """Hides the patches to which the class token attends least, judged by the current weights."""

    name: Literal["attention"] = "attention"
    mask_ratio: Ratio = 0.5
    """Share of patches hidden, in [0, 1); a schedule makes it progressive."""

    def __post_init__(self) -> None:
        check_ratio("mask_ratio", self.mask_ratio)

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"attention"})

    @property
    def is_exact(self) -> bool:
        return is_constant(self.mask_ratio)

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        return hide_highest(
            -inputs.attention, visible_count(inputs.num_patches, ratio_at(self.mask_ratio, progress))
        )

    def num_visible(self, num_patches: int) -> int:
        return visible_count(num_patches, lowest_ratio(self.mask_ratio))
