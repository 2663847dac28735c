"""The learning rates of the releases, step by step."""

import math
from typing import Any

import pytest
from open_clip_train.scheduler import const_lr_cooldown, cosine_lr
from torch import nn
from torch.optim import SGD

from vlp.training.lr_schedule import LR_SCHEDULES, Constant, Cosine, MultiStep


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 2.5e-7), (1999, 5e-4), (2000, 5e-4), (86_696, 2.5e-4), (171_391, 4.2996e-14)],
)
def test_the_schedule_of_the_cluster_masking_paper(step: int, expected: float) -> None:
    assert Cosine()(step, peak=5e-4, total_steps=171_392) == pytest.approx(expected, rel=1e-4)


def open_clip(scheduler: Any, *settings: Any, total: int) -> list[float]:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    adjust = scheduler(optimizer, 3e-4, 10, total, *settings)
    return [adjust(step) for step in range(total)]


def test_cosine_is_open_clips() -> None:
    found = [Cosine(warmup_steps=10)(step, peak=3e-4, total_steps=60) for step in range(60)]
    assert found == pytest.approx(open_clip(cosine_lr, total=60))


@pytest.mark.parametrize(("cooldown", "power", "end"), [(20, 1.0, 0.0), (30, 2.0, 1e-5), (1, 1.0, 0.0)])
def test_constant_with_a_cooldown_is_open_clips(cooldown: int, power: float, end: float) -> None:
    schedule = Constant(warmup_steps=10, cooldown_steps=cooldown, cooldown_power=power, min_lr=end)
    found = [schedule(step, peak=3e-4, total_steps=60) for step in range(60)]
    assert found == pytest.approx(open_clip(const_lr_cooldown, cooldown, power, end, total=60))


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0), (20, 1.2e-3), (40, 2.4e-3), (420, 1.2e-3), (799.5, 2.563e-9)]
)
def test_the_schedule_of_mae_rises_from_0(epoch: float, expected: float) -> None:
    """Golden numbers of the release, which counts in parts of epochs; here an epoch has 312 steps."""
    schedule = Cosine(warmup_steps=40 * 312, warmup_start=0.0)
    found = schedule(epoch * 312, peak=2.4e-3, total_steps=800 * 312)
    assert found == pytest.approx(expected, rel=1e-3 if epoch > 799 else 1e-6)


def test_the_schedule_of_simmim_rises_from_its_start_and_falls_at_its_milestone() -> None:
    schedule = MultiStep(warmup_steps=10, warmup_start=2e-6, milestones=(700,))
    rates = [schedule(epoch, peak=4e-4, total_steps=800) for epoch in (0, 5, 10, 699, 700, 799)]
    assert rates == pytest.approx([2e-6, (2e-6 + 4e-4) / 2, 4e-4, 4e-4, 4e-5, 4e-5])


def test_cosine_ends_at_the_lowest_rate() -> None:
    schedule = Cosine(warmup_steps=0, min_lr=4e-5)
    assert schedule(0, peak=8e-4, total_steps=1000) == pytest.approx(8e-4)
    last = schedule(999, peak=8e-4, total_steps=1000)
    assert last == pytest.approx(4e-5 + 7.6e-4 * (1 + math.cos(math.pi * 0.999)) / 2)


@pytest.mark.parametrize("name", sorted(LR_SCHEDULES))
@pytest.mark.parametrize("warmup", [0, 1, 10, 99, 100, 500])
def test_the_rate_rises_then_falls_whatever_the_warmup(name: str, warmup: int) -> None:
    settings = {"milestones": (50, 80)} if name == "multistep" else {}
    schedule = LR_SCHEDULES[name](warmup_steps=warmup, **settings)
    rates = [schedule(step, peak=1.0, total_steps=100) for step in range(100)]
    top = min(warmup, 100)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cosine", {"warmup_steps": -1}),
        ("cosine", {"warmup_start": -1e-6}),
        ("cosine", {"min_lr": -1.0}),
        ("multistep", {"milestones": (7, 3)}),
        ("multistep", {"factor": 1.0, "milestones": ()}),
        ("constant", {"cooldown_steps": -1}),
        ("constant", {"cooldown_power": 0.0}),
    ],
)
def test_an_impossible_setting_is_named(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LR_SCHEDULES[name](**settings)
