"""Cluster masking (Wei et al., CVPR 2024, arXiv:2405.08815)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.masking.strategy import STRATEGIES, MaskInputs, MaskStrategy, uniform_noise, visible_count


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class ClusterMask(MaskStrategy):
    """Hides random anchor patches together with every patch that looks like one of them."""

    name: Literal["cluster"] = "cluster"
    anchor_ratio: float = 0.03
    """Share of patches drawn as anchors, in (0, 1)."""
    threshold: float | Literal["auto"] = "auto"
    """Cosine similarity to an anchor above which a patch joins its cluster, in [-1, 1].
    `auto` searches the one that meets `target_mask_ratio` before training."""
    target_mask_ratio: float = 0.5
    """Mean share of patches that anchors and clusters hide, in (0, 1)."""
    min_mask_ratio: float = 0.5
    """Share of patches hidden at least, in [0, 1); fixes the encoder's sequence length (the paper's beta)."""

    is_exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.anchor_ratio < 1:
            raise ValueError(f"anchor_ratio must be in (0, 1), got {self.anchor_ratio}")
        if not 0 <= self.min_mask_ratio < 1:
            raise ValueError(f"min_mask_ratio must be in [0, 1), got {self.min_mask_ratio}")
        if not self.anchor_ratio < self.target_mask_ratio < 1:
            raise ValueError(
                f"target_mask_ratio must be above anchor_ratio ({self.anchor_ratio}) and below 1: anchors "
                f"are always hidden; got {self.target_mask_ratio}"
            )
        if self.threshold != "auto" and not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must be auto or in [-1, 1], got {self.threshold}")

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        if self.threshold == "auto":
            raise ValueError("threshold is still auto: calibrate the mask before using it")
        return self.anchor_similarity(inputs, generator=generator) > self.threshold

    def anchor_similarity(self, inputs: MaskInputs, *, generator: Generator | None) -> Tensor:
        """How much each patch looks like its image's nearest anchor: (B, N), infinite for the anchors."""
        anchors = self.draw_anchors(inputs, generator)
        similarity = nearest_anchor_similarity(inputs.patches, anchors)
        return similarity.scatter(1, anchors, torch.inf)

    def draw_anchors(self, inputs: MaskInputs, generator: Generator | None) -> Tensor:
        """A uniform choice of patches of each image: (B, anchors) int64."""
        return uniform_noise(inputs, generator).topk(self.num_anchors(inputs.num_patches), dim=1).indices

    def num_anchors(self, num_patches: int) -> int:
        """Anchors per image, at least one."""
        return max(1, num_patches - int(num_patches * (1 - self.anchor_ratio)))

    def num_visible(self, num_patches: int) -> int:
        return visible_count(num_patches, self.min_mask_ratio)


def nearest_anchor_similarity(patches: Tensor, anchors: Tensor) -> Tensor:
    """Cosine similarity of every patch to the nearest anchor: (B, N, P), (B, A) -> (B, N).

    Patches are contrast-normalized first (section 3.2), all channels together. Only the anchors' rows of
    the similarity matrix are computed, in float32 whatever the autocast.
    """
    with torch.autocast(patches.device.type, enabled=False):
        patches = F.normalize(standardize_patches(patches.float()), dim=2)
        rows = patches.gather(1, anchors[:, :, None].expand(-1, -1, patches.shape[2]))
        return (rows @ patches.transpose(1, 2)).amax(dim=1)


def standardize_patches(patches: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance of each patch: (B, N, P) -> (B, N, P)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
