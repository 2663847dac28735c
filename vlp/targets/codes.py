"""Vectors to the nearest of a set of codes, and codes that fit a set of vectors."""

import torch
from torch import Generator, Tensor

from vlp.core.precision import without_autocast

CHUNK_SIZE = 16_384  # vectors compared with all codes at once: 0.5 GB for 8,192 codes


@torch.no_grad()
def nearest_codes(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the code at the least Euclidean distance: (B, M, P), (K, P) -> (B, M) int64."""
    lengths = codes.square().sum(dim=1)
    with without_autocast(vectors.device):
        chunks = vectors.flatten(0, 1).float().split(CHUNK_SIZE)
        nearest = torch.cat([(lengths - 2 * chunk @ codes.T).argmin(dim=1) for chunk in chunks])
    return nearest.unflatten(0, vectors.shape[:2])


@torch.no_grad()
def fit_codes(
    vectors: Tensor, num_codes: int, *, generator: Generator | None = None, steps: int = 20
) -> Tensor:
    """Codes near which the vectors lie, by k-means from a random choice of them: (M, P) -> (K, P).

    A palette is fitted to pixels, a visual vocabulary to patches. The first codes are distinct, so that one
    colour that fills many pixels does not take many codes.
    """
    vectors = vectors.float()
    distinct = vectors.unique(dim=0)
    if len(distinct) < num_codes:
        raise ValueError(f"{num_codes} codes cannot be fitted to {len(distinct)} distinct vectors")
    codes = distinct[torch.randperm(len(distinct), generator=generator)[:num_codes]]
    for _ in range(steps):
        nearest = nearest_codes(vectors[None], codes)[0]
        counts = torch.bincount(nearest, minlength=num_codes)[:, None]
        sums = torch.zeros_like(codes).index_add(0, nearest, vectors)
        codes = torch.where(counts > 0, sums / counts.clamp(min=1), codes)
    return codes
