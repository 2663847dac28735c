"""Uniform random masking, as in MAE (arXiv:2111.06377) and FLIP (arXiv:2212.00794)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, Tensor

from vlp.masking.schedule import ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    hide_highest,
    uniform_noise,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class RandomMask(ShareMask):
    """Hides the same share of patches in every image, each patch equally likely."""

    name: Literal["random"] = "random"
    formula: ClassVar[str] = "M = r N patches at random"
    paper: ClassVar[str] = "2212.00794"

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        visible = self.visible_at(inputs.num_patches, ratio_at(self.mask_ratio, progress))
        return hide_highest(uniform_noise(inputs, generator), visible)
