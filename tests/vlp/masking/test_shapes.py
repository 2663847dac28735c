"""Masks that hide cells, squares and blocks (SimMIM and BEiT)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from vlp.encoders.vit import ViTConfig
from vlp.masking import MaskInputs, MaskStrategy
from vlp.masking.block import BlockMask
from vlp.masking.grid import GridMask
from vlp.masking.schedule import Schedule
from vlp.masking.square import SquareMask
from vlp.masking.strategy import hide_highest
from vlp.objectives.mae import MAEConfig


def hide(mask: MaskStrategy, num_patches: int, images: int = 200) -> Tensor:
    """Masks as pictures: (images, side, side) bool."""
    side = int(num_patches**0.5)
    inputs = MaskInputs.of(torch.zeros(images, num_patches, 3))
    return mask(inputs, generator=Generator().manual_seed(0)).reshape(images, side, side)


@pytest.mark.parametrize(
    ("side", "cell_size", "mask_ratio", "hidden"),
    [(48, 8, 0.6, 22), (14, 2, 0.6, 30), (48, 4, 0.5, 72), (7, 1, 0.6, 30)],
)
def test_as_many_cells_are_hidden_as_in_simmim(
    side: int, cell_size: int, mask_ratio: float, hidden: int
) -> None:
    mask = GridMask(mask_ratio=mask_ratio, cell_size=cell_size)
    masked = hide(mask, side * side, images=4)
    cells = masked.unfold(1, cell_size, cell_size).unfold(2, cell_size, cell_size).flatten(3)
    assert torch.equal(cells.any(dim=3), cells.all(dim=3))
    assert cells.all(dim=3).sum(dim=(1, 2)).tolist() == [hidden] * 4
    assert mask.num_visible(side * side) == side * side - hidden * cell_size**2


@pytest.mark.parametrize(
    ("image_size", "cell", "patch", "ratio", "cells", "patches"),
    [(192, 32, 4, 0.6, 22, 1408), (224, 32, 16, 0.6, 30, 120), (192, 16, 4, 0.5, 72, 1152)],
)
def test_as_many_patches_are_hidden_as_by_simmims_generator(
    image_size: int, cell: int, patch: int, ratio: float, cells: int, patches: int
) -> None:
    """The released generator's counts for sizes in pixels."""
    side, cell_size = image_size // patch, cell // patch
    masked = hide(GridMask(mask_ratio=ratio, cell_size=cell_size), side * side, images=8)
    assert masked.sum(dim=(1, 2)).tolist() == [patches] * 8
    assert masked[:, ::cell_size, ::cell_size].sum(dim=(1, 2)).tolist() == [cells] * 8


def test_the_cells_of_a_permutation_are_those_of_simmims_generator() -> None:
    """The released generator hides the first cells of numpy's permutation; here, those of highest noise."""
    place = np.random.RandomState(0).permutation(36).argsort()
    noise = torch.from_numpy(-place.astype(float))[None]
    hidden = (
        hide_highest(noise, GridMask(mask_ratio=0.6, cell_size=1).num_visible(36))[0]
        .nonzero()
        .flatten()
        .tolist()
    )
    golden = [2, 5, 7, 8, 10, 11, 13, 14, 15, 16, 17, 20, 22, 26, 27, 28, 29, 30, 31, 32, 33, 35]
    assert hidden == golden


def test_every_cell_is_hidden_equally_often() -> None:
    share = hide(GridMask(mask_ratio=0.5), 64, images=8000).float().mean(dim=0)
    assert (share - 0.5).abs().max() < 5 * (0.25 / 8000) ** 0.5


def test_one_cell_is_always_visible() -> None:
    assert GridMask(mask_ratio=0.99).num_visible(16) == 4
    assert (~hide(GridMask(mask_ratio=0.99), 16)).sum(dim=(1, 2)).tolist() == [4] * 200


def test_a_grid_that_cells_do_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match="cell_size 2 does not divide the 7 patches"):
        GridMask().num_visible(49)
    with pytest.raises(ValueError, match="square grid of patches, got 50"):
        GridMask().num_visible(50)


@pytest.mark.parametrize(("mask_ratio", "size"), [(0.111, 16), (0.25, 24), (0.47, 33)])
def test_a_square_covers_the_share_of_simmims_ablation(mask_ratio: float, size: int) -> None:
    masked = hide(SquareMask(mask_ratio=mask_ratio), 48 * 48)
    for picture in masked:
        rows, columns = picture.any(dim=1).nonzero(), picture.any(dim=0).nonzero()
        assert len(rows) == len(columns) == rows.max() - rows.min() + 1 == size
        assert picture.sum() == size * size


def test_a_square_comes_to_lie_everywhere() -> None:
    masked = hide(SquareMask(mask_ratio=0.25), 16, images=9000).flatten(1)
    places, counts = masked.unique(dim=0, return_counts=True)
    assert len(places) == 9
    assert (counts - 1000).abs().max() < 5 * (1000 * 8 / 9) ** 0.5


def test_blocks_hide_as_much_as_in_beit() -> None:
    hidden = hide(BlockMask(mask_ratio=75 / 196), 196).sum(dim=(1, 2))
    assert hidden.max() == 75
    assert (hidden >= 70).float().mean() > 0.98
    assert hidden.float().mean().item() == pytest.approx(74.5, abs=0.25)


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("mask_ratio", [0.25, 0.4, 0.6])
def test_blocks_hide_nearly_as_much_of_a_small_grid(side: int, mask_ratio: float) -> None:
    hidden = hide(BlockMask(mask_ratio=mask_ratio), side * side).sum(dim=(1, 2)).float()
    quota = round(side * side * mask_ratio)
    assert hidden.max() <= quota
    assert hidden.mean() > 0.9 * quota
    assert (hidden > 0).float().mean() > 0.98


@pytest.mark.parametrize("mask", [BlockMask(mask_ratio=0.1), SquareMask(mask_ratio=0.05)])
def test_a_mask_that_rounds_to_nothing_is_no_mask_to_rebuild_from(mask: MaskStrategy) -> None:
    encoder = ViTConfig(image_size=32, patch_size=16)
    with pytest.raises(ValueError, match=f"mask {mask.name} hides none"):
        MAEConfig().check(encoder, mask)
    rising = replace(mask, mask_ratio=Schedule(start=0.0, end=0.05))  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=f"mask {mask.name} hides none"):
        MAEConfig().check(encoder, rising)


def test_blocks_are_made_of_few_rectangles() -> None:
    """Random patches of this share have some 100 borders between hidden and visible in a direction."""
    masked = hide(BlockMask(mask_ratio=75 / 196), 196)
    borders = masked.diff(dim=2).sum(dim=(1, 2)).float().mean()
    assert borders < 40


def test_no_block_is_too_long_or_too_thin() -> None:
    """With one rectangle to place, its shape is seen: its sides have a ratio of 0.3 to 1 / 0.3, rounded."""
    masked = hide(BlockMask(mask_ratio=16 / 196, max_failures=64), 196)
    whole = masked[masked.sum(dim=(1, 2)) == masked.any(dim=2).sum(dim=1) * masked.any(dim=1).sum(dim=1)]
    heights, widths = whole.any(dim=2).sum(dim=1), whole.any(dim=1).sum(dim=1)
    assert len(whole) > 50
    assert ((heights + 0.5) / (widths - 0.5) > 0.3).all()
    assert ((widths + 0.5) / (heights - 0.5) > 0.3).all()
    assert heights.float().mean().item() == pytest.approx(widths.float().mean().item(), abs=0.7)


@pytest.mark.parametrize(
    ("mask", "settings", "named"),
    [
        (GridMask, {"cell_size": 0}, "cell_size"),
        (GridMask, {"mask_ratio": 1.0}, "mask_ratio"),
        (SquareMask, {"mask_ratio": -0.1}, "mask_ratio"),
        (BlockMask, {"min_aspect": 0.0}, "min_aspect"),
        (BlockMask, {"min_block": 0}, "min_block"),
        (BlockMask, {"max_failures": 0}, "max_failures"),
    ],
)
def test_an_impossible_setting_is_named(mask: type, settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        mask(**settings)
