"""Uniform random masking, as in MAE (arXiv:2111.06377) and FLIP (arXiv:2212.00794)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor

from vlp.masking.schedule import Ratio, hidden_count, is_constant, lowest_ratio, ratio_at
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    MaskStrategy,
    hide_highest,
    uniform_noise,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class RandomMask(MaskStrategy):
    """Hides the same share of patches in every image, each patch equally likely."""

    name: Literal["random"] = "random"
    formula: ClassVar[str] = "M = r N patches at random"
    paper: ClassVar[str] = "2212.00794"
    mask_ratio: Ratio = 0.5
    """Share of patches hidden; a schedule makes it progressive."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"mask_ratio": self.mask_ratio}

    @property
    def is_exact(self) -> bool:
        return is_constant(self.mask_ratio)

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        visible = visible_count(inputs.num_patches, ratio_at(self.mask_ratio, progress))
        return hide_highest(uniform_noise(inputs, generator), visible)

    def counts(self, num_patches: int) -> Mapping[str, int]:
        return hidden_count(self.mask_ratio, num_patches - self.num_visible(num_patches))

    def num_visible(self, num_patches: int) -> int:
        return visible_count(num_patches, lowest_ratio(self.mask_ratio))
