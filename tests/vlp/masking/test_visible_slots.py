"""A mask becomes slots: a fair cut where an image shows too much, padding where it shows too little."""

from itertools import combinations

import pytest
import torch
from scipy.stats import chi2
from torch import Generator, Tensor

from vlp.masking import visible_slots

N = 12


def ragged_masks(seed: int) -> tuple[Tensor, Tensor]:
    """Masks of every mask ratio, from nothing to everything hidden, and noise for the cut."""
    generator = Generator().manual_seed(seed)
    ratio = torch.linspace(0, 1, 64)[:, None]
    masked = torch.rand(64, N, generator=generator) < ratio
    masked[0], masked[-1] = False, True
    return masked, torch.rand(64, N, generator=generator)


@pytest.mark.parametrize("num_visible", [1, 2, 5, 11, 12])
def test_slots_agree_with_a_choice_made_one_image_at_a_time(num_visible: int) -> None:
    masked, noise = ragged_masks(num_visible)
    keep_indices, is_padding = visible_slots(masked, num_visible, noise)
    assert is_padding is not None
    for row in range(len(masked)):
        hidden, draw = masked[row].tolist(), noise[row].tolist()
        candidates = [i for i in range(N) if not hidden[i]] or list(range(N))
        limit = num_visible if not all(hidden) else 1
        expected = sorted(sorted(candidates, key=lambda i: draw[i])[:limit])
        assert keep_indices[row, : len(expected)].tolist() == expected
        assert is_padding[row].tolist() == [False] * len(expected) + [True] * (num_visible - len(expected))


def test_padding_points_at_hidden_patches_only() -> None:
    masked, noise = ragged_masks(0)
    keep_indices, is_padding = visible_slots(masked, 9, noise)
    assert is_padding is not None
    assert is_padding.any()
    assert masked.gather(1, keep_indices)[is_padding].all()
    assert all(len(set(row)) == 9 for row in keep_indices.tolist())


def test_without_noise_the_slots_are_the_visible_patches_in_order() -> None:
    generator = Generator().manual_seed(0)
    hidden = torch.rand(32, N, generator=generator).argsort(dim=1)[:, :5]
    masked = torch.zeros(32, N, dtype=torch.bool).scatter(1, hidden, True)
    keep_indices, is_padding = visible_slots(masked, N - 5)
    assert is_padding is None
    assert keep_indices.tolist() == [[i for i in range(N) if not row[i]] for row in masked.tolist()]


def assert_equally_likely(outcomes: list[tuple[int, ...]], possible: set[tuple[int, ...]]) -> None:
    """Pearson's chi-square; a fair cut fails one time in 10,000 seeds."""
    assert set(outcomes) <= possible
    expected = len(outcomes) / len(possible)
    statistic = sum((outcomes.count(outcome) - expected) ** 2 / expected for outcome in possible)
    assert statistic < chi2.isf(1e-4, df=len(possible) - 1)


def test_every_set_of_visible_patches_survives_the_cut_equally_often() -> None:
    visible = (0, 2, 3, 7, 8, 11)
    masked = torch.ones(8000, N, dtype=torch.bool)
    masked[:, visible] = False
    noise = torch.rand(8000, N, generator=Generator().manual_seed(0))
    keep_indices, is_padding = visible_slots(masked, 3, noise)
    assert is_padding is not None
    assert not is_padding.any()
    assert_equally_likely([tuple(row) for row in keep_indices.tolist()], set(combinations(visible, 3)))


def test_an_image_hidden_entirely_shows_each_patch_equally_often() -> None:
    masked = torch.ones(8000, N, dtype=torch.bool)
    noise = torch.rand(8000, N, generator=Generator().manual_seed(0))
    keep_indices, is_padding = visible_slots(masked, 5, noise)
    assert is_padding is not None
    assert (~is_padding).sum(dim=1).eq(1).all()
    shown = keep_indices[~is_padding].tolist()
    assert_equally_likely([(i,) for i in shown], {(i,) for i in range(N)})


def test_the_greatest_noise_that_a_draw_can_hold_still_comes_before_every_hidden_patch() -> None:
    masked = torch.tensor([[True] * 6 + [False] * 6])
    noise = torch.zeros(1, N)
    noise[0, 6:] = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    keep_indices, is_padding = visible_slots(masked, 6, noise)
    assert keep_indices.tolist() == [[6, 7, 8, 9, 10, 11]]
    assert is_padding is not None
    assert not is_padding.any()
