"""Vectors to the nearest of a set of codes, and codes that fit a set of vectors."""

import torch
from torch import Generator, Tensor


@torch.no_grad()
def nearest_codes(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the code at the least Euclidean distance: (B, M, P), (K, P) -> (B, M) int64."""
    lengths = codes.square().sum(dim=1)
    with torch.autocast(vectors.device.type, enabled=False):
        return torch.stack([(lengths - 2 * image.float() @ codes.T).argmin(dim=1) for image in vectors])


@torch.no_grad()
def fit_codes(
    vectors: Tensor, num_codes: int, *, generator: Generator | None = None, steps: int = 20
) -> Tensor:
    """Codes near which the vectors lie, by k-means from a random choice of them: (M, P) -> (K, P).

    A palette is fitted to pixels, a visual vocabulary to patches.
    """
    if len(vectors) < num_codes:
        raise ValueError(f"{num_codes} codes cannot be fitted to {len(vectors)} vectors")
    codes = vectors[torch.randperm(len(vectors), generator=generator)[:num_codes]].float()
    for _ in range(steps):
        nearest = nearest_codes(vectors[None], codes)[0]
        counts = torch.bincount(nearest, minlength=num_codes)[:, None]
        sums = torch.zeros_like(codes).index_add(0, nearest, vectors.float())
        codes = torch.where(counts > 0, sums / counts.clamp(min=1), codes)
    return codes
