"""When trials are stopped."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from pipelines.sweeps.schedulers.asha import ASHA
from pipelines.sweeps.schedulers.median import MedianStopping
from pipelines.sweeps.schedulers.none import NoScheduler
from pipelines.sweeps.schedulers.scheduler import Curve


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
