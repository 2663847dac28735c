"""Masking by how much a patch matters: keep the important ones, as A-CLIP does, or hide them.

Drawing without replacement adds Gumbel noise to the scores (Kool et al., arXiv:1903.06059).
"""

from dataclasses import dataclass
from math import isqrt
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.core.config import Within
from vlp.masking.schedule import ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    View,
    grid_side,
    hide_highest,
    uniform_noise,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class ImportanceMask(ShareMask):
    """Hides the least or the most important patches, by a score of each."""

    name: Literal["importance"] = "importance"
    formula: ClassVar[str] = "M = r N patches drawn by softmax(score / T)"
    variants: ClassVar[str] = "score"
    score: Literal["variance", "edges", "centre", "attention"] = "variance"
    """What makes a patch important: the variance of its pixels, the energy of its edges, its closeness to
    the centre of the image, or the class token's attention to it."""
    hide: Literal["unimportant", "important"] = "unimportant"
    """Which end of the scores is hidden."""
    temperature: float = 0.0
    """0 hides strictly by score. Above 0, patches are drawn without replacement with probabilities that
    grow as exp(score / temperature), each image's scores in standard deviations."""
    score_share: Annotated[float, Within(0, 1)] = 1.0
    """Share of the hidden patches that the score chooses; the rest is uniformly random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or above, and finite, got {self.temperature}")

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"attention"}) if self.score == "attention" else frozenset()

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        N = inputs.num_patches
        visible = self.visible_at(N, ratio_at(self.mask_ratio, progress))
        scores = self.hiding_scores(inputs)
        if self.temperature > 0:
            scores = scores + self.temperature * gumbel(uniform_noise(inputs, generator))
        by_score = round(self.score_share * (N - visible))
        others = uniform_noise(inputs, generator) if by_score < N - visible else None
        masked = hide_highest(scores, N - by_score, ties=uniform_noise(inputs, generator))
        return masked if others is None else hide_highest(others + masked, visible)

    def hiding_scores(self, inputs: MaskInputs) -> Tensor:
        """Highest for the patches to hide first, in standard deviations of the image's scores: (B, N)."""
        match self.score:
            case "variance":
                scores = inputs.patches.float().var(dim=2)
            case "edges":
                scores = edge_energy(inputs.patches)
            case "centre":
                scores = centre_prior(inputs.num_patches, inputs.device).expand(inputs.num_images, -1)
            case "attention":
                scores = inputs.attention.float()
        scores = (scores - scores.mean(dim=1, keepdim=True)) / (scores.std(dim=1, keepdim=True) + 1e-12)
        return scores if self.hide == "important" else -scores


def gumbel(noise: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) to the standard Gumbel distribution."""
    smallest = torch.finfo(noise.dtype).tiny
    return -(-noise.clamp_min(smallest).log()).clamp_min(smallest).log()


def edge_energy(patches: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels within each patch: (B, N, P) -> (B, N)."""
    B, N, P = patches.shape
    side = isqrt(P // 3)
    pixels = patches.float().reshape(B, N, side, side, -1)
    if side == 1:
        return torch.zeros_like(pixels[:, :, 0, 0, 0])
    down, right = pixels.diff(dim=2).square(), pixels.diff(dim=3).square()
    return down.mean(dim=(2, 3, 4)) + right.mean(dim=(2, 3, 4))


def centre_prior(num_patches: int, device: torch.device) -> Tensor:
    """A Gaussian around the centre whose deviation is a quarter of the side: (N,)."""
    side = grid_side(num_patches)
    place = (torch.arange(side, device=device) - (side - 1) / 2) / side
    bell = torch.exp(-((place / 0.25) ** 2) / 2)
    return (bell[:, None] * bell).flatten()
