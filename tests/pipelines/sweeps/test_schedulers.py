"""When trials are stopped."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket
from ray.tune.schedulers.pbt import PopulationBasedTraining

from pipelines.sweeps.samplers import Space
from pipelines.sweeps.schedulers.asha import ASHA
from pipelines.sweeps.schedulers.median import MedianStopping
from pipelines.sweeps.schedulers.none import NoScheduler
from pipelines.sweeps.schedulers.pbt import PBT
from pipelines.sweeps.schedulers.scheduler import Curve, Member


@pytest.mark.parametrize("factor", [2, 3])
def test_asha_stops_what_ray_tune_stops(factor: int) -> None:
    """One trial after another, each to its end or until it is stopped."""
    asha = ASHA(grace_steps=10, reduction_factor=factor)
    bracket: Any = _Bracket(min_t=10, max_t=90, reduction_factor=factor, s=0)
    ended, decisions = [], []
    for trial in range(30):
        own: dict[float, float] = {}
        for step in range(10, 90, 10):
            own[step] = math.sin(7 * trial) + math.sin(3 * trial * step) / 4 + step / 100
            stops = asha.stops(own, ended)
            assert stops == (bracket.on_result(SimpleNamespace(trial_id=trial), step, own[step]) == "STOP")
            decisions.append(stops)
            if stops:
                break
        ended.append(own)
    assert 10 < sum(decisions) < 30


def test_asha_stops_a_score_that_is_not_finite_and_lets_no_other_one_suffer_by_it() -> None:
    asha = ASHA(grace_steps=10)
    assert asha.stops({10: math.nan}, [{10: 0.1}])
    assert not asha.stops({10: 0.2}, [{10: math.nan}, {10: math.nan}])


def test_the_median_rule_compares_the_best_with_running_means_of_as_many_steps() -> None:
    median = MedianStopping(grace_steps=20, min_trials=3)
    others: list[Curve] = [
        {10: 0.1, 20: 0.3, 30: 0.9},
        {10: 0.2, 20: 0.4},
        {10: 0.3, 20: 0.5},
    ]  # means up to 20: .2, .3, .4
    assert median.stops({10: 0.1, 20: 0.29}, others)
    assert not median.stops({10: 0.31, 20: 0.1}, others)  # its best counts
    assert not median.stops({10: 0.0}, others)  # in its grace
    assert not median.stops({10: 0.1, 20: 0.1}, others[:2])  # too few to tell
    assert not median.stops({10: 0.1, 20: 0.1, 30: 0.1}, others)  # too few came as far


def test_none_stops_nothing() -> None:
    assert not NoScheduler().stops({10: -math.inf}, [{10: 1.0}])


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_pbt_has_the_quantiles_of_ray_tune(count: int, fraction: float) -> None:
    scores = [math.sin(7 * n) for n in range(count)]
    theirs = PopulationBasedTraining(quantile_fraction=fraction, hyperparam_mutations={"lr": [1]})
    for n, score in enumerate(scores):
        trial, state = _Trial(n), SimpleNamespace(last_score=score)
        theirs._trial_state[trial] = state  # pyright: ignore[reportArgumentType]
    found = PBT(perturbation_interval=10, quantile_fraction=fraction).quantiles(scores)
    assert found == tuple([trial.number for trial in side] for side in theirs._quantiles())  # pyright: ignore[reportAttributeAccessIssue]


class _Trial:
    """What Ray Tune's scheduler asks of a trial."""

    def __init__(self, number: int) -> None:
        self.number = number

    def is_finished(self) -> bool:
        return False


def test_pbt_multiplies_numbers_within_their_range_and_shifts_in_lists() -> None:
    space = Space.of(
        {
            "a": {"loguniform": [0.1, 1.0]},
            "b": {"uniform": [-1.0, 2.0]},
            "c": {"choice": ["x", "y", "z"]},
            "d": {"randint": [1, 100]},
            "e": {"quniform": [0.1, 0.9, 0.1]},
        }
    )
    point = {"a": 0.5, "b": 0.5, "c": 1, "d": 0.495, "e": 4.5 / 9}
    values = space.values(point)
    assert (values["d"], values["e"]) == (50, 0.5)
    pbt = PBT(perturbation_interval=1, quantile_fraction=0.5, resample_probability=0.0)
    seen: dict[str, set[Any]] = {key: set() for key in point}
    for seed in range(50):
        copies = pbt.copies([Member(point, 1.0), Member({}, math.nan)], space=space, seed=seed)
        assert list(copies) == [1]
        assert copies[1].donor == 0
        for key, value in space.values(copies[1].point).items():
            seen[key].add(round(value, 6) if isinstance(value, float) else value)
    scaled = {key: {round(values[key] * f, 6) for f in (0.8, 1.2)} for key in ("a", "b")}
    assert seen == scaled | {"c": {"x", "z"}, "d": {40, 60}, "e": {0.4, 0.6}}
    for sampler in space.samplers.values():  # at the ends
        for place in (0.0, (sampler.num_values or 1) - 1e-9):
            for factor in (0.8, 1.2):
                sampler.at(sampler.scaled(place, factor))


def test_pbt_draws_anew_as_often_as_it_is_asked_and_says_the_same_of_a_seed() -> None:
    space = Space.of({"a": {"uniform": [0.0, 1.0]}})
    members = [Member({"a": 0.5}, score) for score in (1.0, 0.0)]
    pbt = PBT(perturbation_interval=1, quantile_fraction=0.5, resample_probability=0.25)
    found = [pbt.copies(members, space=space, seed=seed)[1].point["a"] for seed in range(400)]
    drawn = sum(round(place, 6) not in (0.4, 0.6) for place in found)
    assert 70 < drawn < 130
    assert found == [pbt.copies(members, space=space, seed=seed)[1].point["a"] for seed in range(400)]
