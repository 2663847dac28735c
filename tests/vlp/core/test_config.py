"""A config refuses a number out of the bounds that its class states, however it is made."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import pytest

from vlp.core.config import Above, AtLeast, StrictConfig, Within, bounds_of
from vlp.masking.random import RandomMask
from vlp.masking.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Sizes(StrictConfig):
    steps: Annotated[int, AtLeast(1)] = 1
    retries: Annotated[int, AtLeast(0)] = 0
    lr: Annotated[float, Above(0)] | None = None
    share: Annotated[float, Within(0, 1, "[)")] = 0.0
    shots: tuple[Annotated[int, AtLeast(1)], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Renamed(Sizes):
    steps: int = 5
    """Without bounds of its own."""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"retries": -1}, "retries must not be negative, got -1"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"share": 1}, r"share must be in \[0, 1\), got 1"),
        ({"share": float("nan")}, r"share must be in \[0, 1\), got nan"),
        ({"shots": (3, 0)}, r"shots must be at least 1, got \[3, 0\]"),
    ],
)
def test_a_number_out_of_bounds_is_refused_in_words(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Sizes(**setting)
    with pytest.raises(ValueError, match=f"^{message}$"):
        dataclasses.replace(Sizes(), **setting)


def test_a_number_on_an_inclusive_end_is_none_too_many() -> None:
    assert Sizes(steps=1, retries=0, lr=1e-9, share=0, shots=(1,)).share == 0


@pytest.mark.parametrize(("ends", "allowed"), [("[]", "01"), ("[)", "0"), ("(]", "1"), ("()", "")])
def test_a_round_bracket_leaves_an_end_out(ends: str, allowed: str) -> None:
    bound = Within(0, 1, ends)
    assert [bound.allows(number) for number in (0, 1)] == ["0" in allowed, "1" in allowed]
    assert bound.allows(0.5)
    assert not bound.allows(-0.1)
    assert not bound.allows(1.1)


def test_bounds_are_inherited_by_a_setting_that_is_stated_anew() -> None:
    assert bounds_of(Renamed) == bounds_of(Sizes)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Renamed(steps=0)


def test_a_schedule_stays_within_the_bounds_of_its_setting() -> None:
    with pytest.raises(ValueError, match=r"^mask_ratio.end must be in \[0, 1\), got 1.5$"):
        RandomMask(mask_ratio=Schedule(start=0.5, end=1.5))
    assert RandomMask(mask_ratio=Schedule(start=0.5, end=0.9)).mask_ratio
