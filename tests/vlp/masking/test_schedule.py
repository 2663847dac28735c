"""Ratios that change with the training."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator

from vlp.masking import MaskInputs
from vlp.masking.attention import AttentionMask
from vlp.masking.grid import GridMask
from vlp.masking.random import RandomMask
from vlp.masking.schedule import Schedule


@pytest.mark.parametrize(
    ("shape", "quarter", "half"),
    [
        ("linear", 0.25, 0.5),
        ("cosine", (1 - math.cos(math.pi / 4)) / 2, 0.5),
        ("power", 1 / 64, 1 / 8),
        ("step", 0, 0),
    ],
)
def test_a_schedule_moves_from_its_start_to_its_end(shape: str, quarter: float, half: float) -> None:
    schedule = Schedule(start=0.2, end=0.7, begin=0.1, finish=0.5, shape=shape, power=3)  # pyright: ignore[reportArgumentType]
    assert [schedule(p) for p in (0.0, 0.1)] == [0.2, 0.2]
    assert schedule(0.2) == pytest.approx(0.2 + 0.5 * quarter)
    assert schedule(0.3) == pytest.approx(0.2 + 0.5 * half)
    assert [schedule(p) for p in (0.5, 0.9)] == [0.7, 0.7]


@pytest.mark.parametrize("shape", ["linear", "cosine", "power", "step"])
def test_a_falling_schedule_mirrors_a_rising_one(shape: str) -> None:
    up, down = (Schedule(start=a, end=b, shape=shape) for a, b in ((0.3, 0.8), (0.8, 0.3)))  # pyright: ignore[reportArgumentType]
    for progress in (0.0, 0.1, 0.5, 0.77, 0.999):
        assert up(progress) + down(progress) == pytest.approx(1.1)
        assert up.lowest == down.lowest == 0.3


def test_a_progressive_mask_hides_what_the_schedule_says_within_a_fixed_width() -> None:
    mask = RandomMask(mask_ratio=Schedule(start=0.25, end=0.75))
    inputs = MaskInputs.of(torch.zeros(8, 196, 3))
    assert mask.num_visible(196) == 147
    for progress, visible in ((0.0, 147), (0.5, 98), (0.9, 58)):
        masked = mask(inputs, progress=progress, generator=Generator().manual_seed(0))
        assert (~masked).sum(dim=1).tolist() == [visible] * 8


def test_more_is_hidden_of_the_same_draw_as_the_ratio_rises() -> None:
    inputs = MaskInputs.of(
        torch.zeros(8, 196, 3), attention=torch.rand(8, 196, generator=Generator().manual_seed(1))
    )
    for mask in (
        RandomMask(mask_ratio=Schedule(start=0.2, end=0.9)),
        GridMask(mask_ratio=Schedule(start=0.2, end=0.9)),
        AttentionMask(mask_ratio=Schedule(start=0.2, end=0.9)),
    ):
        early, late = (mask(inputs, progress=p, generator=Generator().manual_seed(0)) for p in (0.2, 0.7))
        assert not (early & ~late).any()
        assert early.sum() < late.sum()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"begin": 0.5, "finish": 0.5}, "begin"),
        ({"finish": 1.5}, "finish"),
        ({"begin": -0.1}, "begin"),
        ({"power": 0.0}, "power"),
    ],
)
def test_an_impossible_schedule_is_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Schedule(start=0.2, end=0.4, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("key", ["start", "end"])
def test_a_ratio_that_leaves_its_range_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio.{key}.*1.5"):
        RandomMask(mask_ratio=replace(Schedule(start=0.1, end=0.1), **{key: 1.5}))
