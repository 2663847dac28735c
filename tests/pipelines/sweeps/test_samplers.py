"""What settings are drawn from, and the points of a space."""

import random
from typing import Any

import pytest

from pipelines.sweeps.samplers import Space
from pipelines.sweeps.search import SEARCHES, Proposal, Tried


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"run": [0.1]}, r"'run' is not a sampler; valid: choice, grid"),
        ({"unifrom": [0, 1]}, r"'unifrom' is not a sampler; did you mean uniform\?"),
        ({"uniform": [0.1]}, r"uniform takes 2 numbers, \[low, high\]; got \[0\.1\]"),
        ({"quniform": [0.1, 0.2]}, r"quniform takes 3 numbers, \[low, high, step\]"),
        ({"uniform": 0.1}, r"uniform takes 2 numbers"),
        ({"loguniform": ["1e-4", 0.1]}, r"'1e-4' is text in YAML; write the number as 1\.0e-4"),
        ({"choice": ["1e5"]}, r"'1e5' is text in YAML; write the number as 1\.0e\+5"),
        ({"uniform": [0.2, 0.1]}, r"uniform goes from low to high, got \[0\.2, 0\.1\]"),
        ({"randint": [3, 3]}, r"randint goes from low to high"),
        ({"randint": [1, 2.5]}, r"randint takes whole numbers"),
        ({"loguniform": [0, 1]}, r"loguniform begins above 0, got 0"),
        ({"quniform": [0.1, 0.2, 0]}, r"no multiple of 0"),
        ({"uniform": [True, 2]}, r"takes numbers, got True"),
        ({"uniform": [0, float("inf")]}, r"takes numbers, got inf"),
        ({"choice": []}, r"choice takes a list of one value or more; got \[\]"),
        ({"grid": 3}, r"grid takes a list of one value or more; got 3"),
        ({"grid": [1, 2, 1]}, r"grid has 1 twice"),
        ({"uniform": [0, 1], "choice": [1]}, r"takes one sampler"),
        ({}, r"takes one sampler"),
        (0.5, r"takes one sampler"),
    ],
)
def test_what_is_no_sampler_is_refused_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^space\.mask\.mask_ratio: .*{said}") as error:
        Space.of({"mask.mask_ratio": given})
    assert "\n" not in str(error.value)


def test_a_space_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="space is empty"):
        Space.of({})


@pytest.mark.parametrize(
    ("given", "corners"),
    [
        ({"uniform": [0.1, 0.8]}, (0.1, 0.8)),
        ({"loguniform": [0.001, 10]}, (0.001, 10)),
        ({"quniform": [0.1, 0.55, 0.1]}, (0.1, 0.5)),
        ({"randint": [2, 6]}, (2, 5)),
        ({"choice": ["a", "b", "c"]}, ("a", "b", "c")),
    ],
)
def test_draws_lie_between_the_corners_and_reach_them(given: Any, corners: tuple[Any, ...]) -> None:
    sampler = Space.of({"key": given}).samplers["key"]
    assert sampler.corners == pytest.approx(corners) if corners[0] != "a" else sampler.corners == corners
    count = sampler.num_values or 1
    drawn = [sampler.at(random.Random(i).random() * count) for i in range(500)]
    assert min(sampler.corners) <= min(drawn)
    assert max(drawn) <= max(sampler.corners)
    if given.keys() & {"quniform", "randint", "choice"}:
        assert {min(drawn), max(drawn)} == {min(sampler.corners), max(sampler.corners)}


def test_half_of_the_draws_of_loguniform_are_below_the_geometric_mean() -> None:
    sampler = Space.of({"key": {"loguniform": [0.01, 1]}}).samplers["key"]
    assert sampler.at(0.5) == pytest.approx(0.1)


def test_the_points_of_a_grid_come_in_the_order_of_the_file_each_once() -> None:
    space = Space.of({"a": {"grid": [1, 2]}, "b": {"grid": ["x", "y", "z"]}})
    values = [tuple(space.values(point).values()) for point in space.grid]
    assert values == [(1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")]


CONDITIONAL: dict[str, Any] = {
    "mask": {"choice": [{"name": "random"}, {"name": "cluster", "feature": "mix"}]},
    "mask.alpha_power": {"choice": [1, 2, 3], "when": {"mask.feature": "mix"}},
    "mask.alpha_shape": {"choice": ["linear", "cosine"], "when": {"mask.alpha_power": [2, 3]}},
    "optimizer.lr": {"choice": [0.1, 0.2]},
}


def test_a_setting_is_searched_only_where_its_condition_is_met() -> None:
    """Also by a part of a component, and by a setting that has a condition of its own."""
    space = Space.of(CONDITIONAL)
    found = [tuple(map(str, list(space.values(point).values())[1:])) for point in space.grid]
    assert found == [
        *(("0.1",), ("0.2",)),
        *(("1", "0.1"), ("1", "0.2")),
        *((power, shape, lr) for power in "23" for shape in ("linear", "cosine") for lr in ("0.1", "0.2")),
    ]
    assert space.num_points == len(list(space.corners())) == len(found) == 12
    keys = {tuple(space.active(space.draw(random.Random(seed)))) for seed in range(50)}
    first, power, shape, last = CONDITIONAL
    assert keys == {(first, last), (first, power, last), (first, power, shape, last)}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"mask.feature": "rgb"}, r"^space\.key: when: mask\.feature is never rgb"),
        ({"mask.featur": "mix"}, r"mask\.featur is never mix"),
        ({"optimizer.lr": 0.1}, r"optimizer\.lr is not among the keys of space above it"),
        ({"decay": 0.1}, r"decay is drawn from a range; a condition takes one of a list"),
        ({"decay.part": 0.1}, r"decay\.part is drawn from a range"),
        ({}, r"when takes other keys"),
        ("mask", r"when takes other keys"),
    ],
)
def test_a_condition_that_can_never_be_met_is_named(when: Any, said: str) -> None:
    space = {"mask": CONDITIONAL["mask"], "decay": {"uniform": [0.0, 1.0]}}
    with pytest.raises(ValueError, match=said):
        Space.of(space | {"key": {"choice": [1, 2], "when": when}})


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_searches_propose_no_setting_whose_condition_is_not_met(name: str) -> None:
    space, tried = Space.of(CONDITIONAL), list[Tried]()
    search = SEARCHES[name](**({"num_random": 3} if name == "tpe" else {}))
    for number in range(12):
        asked = Proposal(space=space, tried=tried, directions=["max"], number=number, seed=number)
        point = search.propose(asked)
        assert point == space.active(point)
        tried.append(Tried(point, [float(len(point))], {10: float(len(point))}, False))
    assert {len(one.point) for one in tried} >= {2, 4}
