"""AvgDist, against distances measured with scipy's Euclidean distance transform."""

import pytest
import torch
from torch import Generator, Tensor

from vlp.masking.distance import average_distance


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


@pytest.mark.parametrize(("cell", "ratio", "distance"), [(8, 0.9, 10.0), (16, 0.5, 5.98), (32, 0.6, 15.3)])
def test_random_cells_are_as_far_as_in_the_specification(cell: int, ratio: float, distance: float) -> None:
    generator, side = Generator().manual_seed(0), 192 // cell
    hidden = -(-(side**2) * int(100 * ratio) // 100)
    draws = [torch.randperm(side**2, generator=generator)[:hidden].tolist() for _ in range(15)]
    found = [average_distance(cells(draw, side=side, cell=cell)).item() for draw in draws]
    assert sum(found) / len(found) == pytest.approx(distance, rel=0.06)
