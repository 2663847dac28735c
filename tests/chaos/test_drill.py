"""The shortest part of `make chaos`."""

import pytest

from tests.chaos.drill import drill


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_costs_some_steps_and_loses_nothing() -> None:
    (outcome,), lost = drill(["worker"])
    assert lost == []
    assert outcome.meanwhile > 0
