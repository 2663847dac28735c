"""Masking whole k-means clusters, a variant of cluster masking (arXiv:2405.08815)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.core.config import AtLeast, Within
from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.similarity import standardize_patches
from vlp.masking.strategy import (
    STRATEGIES,
    Choice,
    MaskInputs,
    MaskStrategy,
    hide_highest,
    uniform_noise,
    visible_count,
)


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class KMeansMask(MaskStrategy):
    """Groups the patches of each image by their pixels and hides a random choice of the groups."""

    name: Literal["kmeans"] = "kmeans"
    formula: ClassVar[str] = "M = r K of K k-means clusters"
    paper: ClassVar[str] = "2405.08815"
    num_clusters: Annotated[int, AtLeast(2)] = 8
    """K, groups per image."""
    iterations: Annotated[int, AtLeast(1)] = 10
    """Lloyd iterations per image and step."""
    mask_ratio: Ratio = 0.5
    """Share of the clusters hidden, rounded down to whole clusters; so is the mean share of the
    patches. A schedule makes it progressive."""
    min_mask_ratio: Annotated[float, Within(0, 1, "[)")] = 0.5
    """Share of patches hidden at least; fixes the encoder's sequence length (the paper's beta)."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"mask_ratio": self.mask_ratio, "min_mask_ratio": self.min_mask_ratio}

    @property
    def is_exact(self) -> bool:
        return False

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        return self.explained(inputs, progress=progress, generator=generator).masked

    def explained(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Choice:
        K = min(self.num_clusters, inputs.num_patches)
        first = uniform_noise(inputs, generator).topk(K, dim=1).indices
        noise = uniform_noise(inputs, generator)[:, :K]
        visible = K - int(K * ratio_at(self.mask_ratio, progress))
        with torch.autocast(inputs.device.type, enabled=False):
            x = F.normalize(standardize_patches(inputs.patches.float()), dim=2)
            labels = lloyd(x, first, iterations=self.iterations)
        return Choice(hide_highest(noise, visible).gather(1, labels), None, labels)

    def counts(self, num_patches: int) -> Mapping[str, int]:
        return {"min_mask_ratio": num_patches - self.num_visible(num_patches)}

    def num_visible(self, num_patches: int) -> int:
        return visible_count(num_patches, self.min_mask_ratio)


def lloyd(x: Tensor, first: Tensor, *, iterations: int) -> Tensor:
    """K-means of each image's patches by Euclidean distance: (B, N, P), (B, K) -> (B, N) int64 labels.

    On vectors of length 1 this is clustering by cosine similarity. A cluster that loses all its patches
    takes over the one that is farthest from its centre.

    Args:
        first: the patches that are the first centres.
    """
    K = first.shape[1]
    centres = x.gather(1, first[:, :, None].expand(-1, -1, x.shape[2]))
    for _ in range(iterations):
        distances = squared_distances(x, centres)
        members = F.one_hot(_fill_empty(distances, distances.argmin(dim=2)), K).to(x.dtype)
        centres = members.mT @ x / members.sum(dim=1).clamp_min(1)[:, :, None]
    return squared_distances(x, centres).argmin(dim=2)


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """(B, N, P), (B, K, P) -> (B, N, K)."""
    squares = x.square().sum(dim=2)[:, :, None] + centres.square().sum(dim=2)[:, None, :]
    return squares - 2 * x @ centres.mT


def _fill_empty(distances: Tensor, labels: Tensor) -> Tensor:
    """Give the j-th empty cluster the patch that is j-th farthest from its centre: (B, N, K), (B, N)."""
    K = distances.shape[2]
    is_empty = F.one_hot(labels, K).sum(dim=1) == 0
    empty_first = is_empty.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    own = distances.gather(2, labels[:, :, None]).squeeze(2)
    farthest = own.topk(K, dim=1).indices
    taken = torch.where(is_empty.gather(1, empty_first), empty_first, labels.gather(1, farthest))
    return labels.scatter(1, farthest, taken)
