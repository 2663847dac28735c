"""What a sweep says of its pace."""

from pipelines.sweeps.live import overhead_text


def test_the_time_of_a_sweep_is_compared_with_that_of_its_trials() -> None:
    said = overhead_text(92.0, worked=160.0, at_once=2)
    assert said == "took 2 min, 1.15 times the 80 s that its trials worked, 2 at once"
