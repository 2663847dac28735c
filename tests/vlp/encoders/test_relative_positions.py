"""Tables of relative positions, resized as BEiT resizes them."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from vlp.encoders.relative_positions import resized_table


def by_grid(table: Tensor, new: int) -> Tensor:
    """Another cubic interpolation of scipy's, place by place, on distances in geometric progression."""
    old = round(len(table) ** 0.5)
    reach, best = new // 2, 1.01
    for q in np.linspace(1.01, 1.5, 200_001):  # instead of a bisection
        if (1 - q ** (old // 2)) / (1 - q) <= reach:
            best = q
    distances = np.cumsum(best ** np.arange(old // 2))
    places = np.concatenate([-distances[::-1], [0], distances])
    wanted = (np.arange(new) - reach).clip(places[0], places[-1])
    grid = np.stack(np.meshgrid(wanted, wanted, indexing="ij"), axis=-1)
    maps = table.T.reshape(-1, old, old).double().numpy()
    found = [RegularGridInterpolator((places, places), one, method="cubic")(grid) for one in maps]
    return torch.tensor(np.stack(found)).flatten(1).T.float()


@pytest.mark.parametrize(("old", "new"), [(11, 13), (11, 23), (13, 17)])
def test_a_table_is_bicubic_on_geometric_places(old: int, new: int) -> None:
    table = torch.randn(old**2, 2, generator=torch.Generator().manual_seed(0))
    found = resized_table(table, num_entries=new**2)
    torch.testing.assert_close(found, by_grid(table, new), atol=1e-3, rtol=1e-3)
    middle_old, middle_new = (side**2 // 2 for side in (old, new))
    torch.testing.assert_close(found[middle_new], table[middle_old])  # no distance stays none
    torch.testing.assert_close(found[middle_new + 1], table[middle_old + 1], atol=1e-3, rtol=1e-3)


def test_entries_of_the_class_token_stay_and_so_does_a_table_of_the_same_size() -> None:
    table = torch.randn(11**2 + 3, 2, generator=torch.Generator().manual_seed(0))
    found = resized_table(table, num_entries=13**2 + 3)
    assert found.shape == (13**2 + 3, 2)
    assert torch.equal(found[-3:], table[-3:])
    assert torch.equal(found[:-3], resized_table(table[:-3], num_entries=13**2))
    assert resized_table(table, num_entries=len(table)) is table
    assert len(resized_table(table[:50], num_entries=13**2)) == 50  # of no square: its shape is refused
