"""AvgDist, against scipy's Euclidean distance transform and the distances of known masks."""

from typing import Any

import pytest
import torch
from scipy import ndimage
from torch import Generator, Tensor

from vlp.masking import MaskInputs, MaskStrategy
from vlp.masking.distance import average_distance
from vlp.masking.grid import GridMask
from vlp.masking.square import SquareMask


def cells(indices: list[int], *, side: int, cell: int) -> Tensor:
    """A mask of (side * cell)^2 pixels that hides some cells: (1, H, H)."""
    hidden = torch.zeros(side * side, dtype=torch.bool)
    hidden[indices] = True
    return hidden.view(1, side, side).repeat_interleave(cell, 1).repeat_interleave(cell, 2)


@pytest.mark.parametrize(
    ("hidden", "distance"),
    [
        (cells([0, 1, 2, 3], side=2, cell=2), float("inf")),
        (cells([], side=2, cell=2), 0.0),
        (cells([14], side=6, cell=32), 5.84375),
        (cells([i for i in range(36) if (i // 6 + i) % 2], side=6, cell=32), 7.026041666666667),
    ],
)
def test_distances_of_known_masks(hidden: Tensor, distance: float) -> None:
    assert average_distance(hidden).item() == pytest.approx(distance, rel=1e-5)


def test_a_hole_of_4_by_4_pixels() -> None:
    hidden = torch.zeros(1, 8, 8, dtype=torch.bool)
    hidden[:, 2:6, 2:6] = True
    assert average_distance(hidden).item() == pytest.approx(1.25)


def measured(hidden: Tensor) -> Tensor:
    """AvgDist by scipy: (B, H, W) bool -> (B,)."""
    transform: Any = ndimage.distance_transform_edt  # says nothing of its result
    means = [transform(one)[one].mean() for one in hidden.numpy()]
    return torch.tensor(means, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(8, 8), (13, 30), (64, 48)])
def test_distances_are_those_of_the_exact_transform(shape: tuple[int, int]) -> None:
    ratio = torch.tensor([0.05, 0.5, 0.9, 0.99])[:, None, None]
    hidden = torch.rand(4, *shape, generator=Generator().manual_seed(0)) < ratio
    hidden[:, :4, :7] = True
    hidden[:, -1, -1] = False
    torch.testing.assert_close(average_distance(hidden).double(), measured(hidden), atol=1e-4, rtol=1e-5)


def draw(mask: MaskStrategy, *, side: int, images: int) -> Tensor:
    """Masks of images of 192 x 192 pixels, patches repeated: (images, 192, 192) bool."""
    inputs = MaskInputs.of(torch.zeros(images, side * side, 3))
    masked = mask(inputs, generator=Generator().manual_seed(0)).view(images, side, side)
    return masked.repeat_interleave(192 // side, 1).repeat_interleave(192 // side, 2)


def assert_near(found: Tensor, expected: float) -> None:
    """Within 2 % of a mean over 200 draws, and what chance makes of it: four standard errors."""
    chance = 4 * found.std().item() * (1 / len(found) + 1 / 200) ** 0.5
    assert found.mean().item() == pytest.approx(expected, abs=0.02 * expected + chance)


TABLE = {
    4: {0.2: 1.39, 0.6: 2.08, 0.9: 5.04},
    8: {0.2: 2.26, 0.6: 3.64, 0.9: 10.0},
    16: {0.2: 4.13, 0.6: 7.31, 0.9: 20.0},
    32: {0.1: 7.64, 0.2: 8.48, 0.4: 11.2, 0.6: 15.3, 0.9: 46.6},
    64: {0.2: 20.1, 0.6: 35.8, 0.8: 69.2},
}
"""AvgDist of random cells, by their side in pixels and the mask ratio."""


@pytest.mark.parametrize(("cell", "ratio"), [(cell, ratio) for cell in TABLE for ratio in TABLE[cell]])
def test_random_cells_are_as_far_as_in_the_specification(cell: int, ratio: float) -> None:
    images = {4: 8, 8: 16, 16: 50}.get(cell, 150)
    hidden = draw(GridMask(mask_ratio=ratio, cell_size=1), side=192 // cell, images=images)
    assert_near(measured(hidden), TABLE[cell][ratio])


@pytest.mark.parametrize(("size", "distance"), [(64, 11.2), (96, 16.5), (128, 21.9), (160, 27.8)])
def test_a_square_that_moves_is_as_far_as_in_the_specification(size: int, distance: float) -> None:
    hidden = draw(SquareMask(mask_ratio=(size / 192) ** 2), side=192, images=60)
    assert hidden.sum(dim=(1, 2)).eq(size * size).all()
    assert_near(measured(hidden), distance)
