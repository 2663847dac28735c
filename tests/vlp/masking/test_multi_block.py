"""I-JEPA's blocks against its own way to draw them, and what becomes of them as a mask."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from vlp.masking import MaskInputs
from vlp.masking.multi_block import MultiBlockMask, block_size

SIDE, N = 14, 196


def release_size(scale: float, aspect: float) -> tuple[int, int]:
    """Rows and columns, as I-JEPA's collator makes them of a scale and an aspect ratio."""
    area = int(SIDE * SIDE * scale)
    return min(SIDE, round(np.sqrt(area * aspect))), min(SIDE, round(np.sqrt(area / aspect)))


@pytest.mark.parametrize("scale", [0.15, 0.17, 0.2, 0.85, 1.0])
@pytest.mark.parametrize("aspect", [0.75, 1.0, 1.5])
def test_sizes_are_those_of_the_release(scale: float, aspect: float) -> None:
    found = block_size(torch.tensor(scale).double(), torch.tensor(aspect).double(), SIDE)
    assert tuple(found.tolist()) == release_size(scale, aspect)


def drawn(seed: int, **settings: float) -> tuple[MultiBlockMask, MaskInputs, Tensor, Tensor]:
    mask, inputs = MultiBlockMask(**settings), MaskInputs.of(torch.zeros(64, N, 1))  # pyright: ignore[reportArgumentType]
    return mask, inputs, *mask.blocks(inputs, Generator().manual_seed(seed))


def test_blocks_are_rectangles_of_one_size_for_a_batch_at_places_of_their_own() -> None:
    for seed in range(20):
        _, _, targets, context = drawn(seed)
        assert targets.shape == (64, 4, N)
        grids = targets.flatten(0, 1).unflatten(1, (SIDE, SIDE))
        rows, columns = grids.any(dim=2).sum(dim=1), grids.any(dim=1).sum(dim=1)
        assert len(rows.unique()) == len(columns.unique()) == 1
        assert (rows * columns == grids.flatten(1).sum(dim=1)).all()
        assert 0.13 * N <= (rows * columns)[0] <= 0.22 * N
        assert len(grids.unique(dim=0)) > 10
        assert context.sum(dim=1).float().mean() >= 0.8 * N


def test_targets_are_hidden_before_what_lies_outside_of_the_context_and_that_before_the_rest() -> None:
    for seed in range(20):
        mask, inputs, targets, context = drawn(seed)
        masked = mask(inputs, generator=Generator().manual_seed(seed))
        is_target = targets.any(dim=1)
        outside = ~is_target & ~context
        rest = ~is_target & context
        for of_image, target, out, inner in zip(masked, is_target, outside, rest, strict=True):
            assert of_image[target].all() or not of_image[out | inner].any()
            assert of_image[out].all() or not of_image[inner].any()


def test_the_default_ratio_is_what_the_blocks_hide_in_the_mean() -> None:
    hidden = []
    for seed in range(100):
        _, _, targets, context = drawn(seed)
        hidden.append((targets.any(dim=1) | ~context).float().mean().item())
    assert np.mean(hidden) == pytest.approx(MultiBlockMask().mask_ratio, abs=0.02)  # pyright: ignore[reportArgumentType]


def test_impossible_ranges_are_named() -> None:
    with pytest.raises(ValueError, match="target_scale must be"):
        MultiBlockMask(target_scale=(0.3, 0.2))
    with pytest.raises(ValueError, match="context_scale must be in"):
        MultiBlockMask(context_scale=(0.5, 1.5))
