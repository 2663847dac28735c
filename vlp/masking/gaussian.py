"""Masking around the centre of the image, where its subject tends to be: GLIP (arXiv:2403.15837)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.core.config import Above
from vlp.masking.schedule import ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    grid_side,
    hide_highest,
    uniform_noise,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class GaussianMask(ShareMask):
    """Shows the patches of the largest U(0, 1) + density, a normal one around the centre of the image."""

    name: Literal["gaussian"] = "gaussian"
    formula: ClassVar[str] = "M = r N patches of the least U(0, 1) + N((x, y); 0, v I)"
    paper: ClassVar[str] = "2403.15837"
    variance: Annotated[float, Above(0)] = 0.2
    """v, where the image reaches from -1 to 1: the smaller, the nearer to the centre are patches shown."""

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        visible = self.visible_at(inputs.num_patches, ratio_at(self.mask_ratio, progress))
        shown = uniform_noise(inputs, generator) + self.density(inputs.num_patches, inputs.device)
        return hide_highest(-shown, visible)

    def density(self, num_patches: int, device: torch.device) -> Tensor:
        """Of each patch, whose corners are the image's: (N,)."""
        line = torch.linspace(-1, 1, grid_side(num_patches), device=device)
        squared = (line[:, None].square() + line.square()).flatten()
        return (-squared / (2 * self.variance)).exp() / (2 * math.pi * self.variance)
