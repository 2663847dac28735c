"""A mean over sets says what it is over, and its interval is that of drawing the images of every set anew."""

import numpy as np
import pytest
import torch

from vlp.metrics.group_means import group_means
from vlp.metrics.intervals import Interval, named_intervals
from vlp.metrics.outcomes import Answers, named_metrics

GROUPS = {"natural": {"a": "acc1", "b": "acc1", "c": "mean_per_class_recall"}, "all": {"a": "acc1"}}


def test_a_mean_says_what_it_is_over_and_what_it_lacks() -> None:
    metrics = {
        "a/knn/acc1": 0.2,
        "b/knn/acc1": 0.4,
        "a/zero_shot/acc1": 0.5,
        "b/other": 0.9,
        "d/knn/acc1": 1.0,
    }
    metrics |= {"c/zero_shot/mean_per_class_recall": 0.1, "c/zero_shot/acc1": 0.7, "c/knn/acc1": 0.9}
    found = group_means(metrics, {key: Interval(v, v) for key, v in metrics.items()}, groups=GROUPS)
    for protocol, over, missing in (("knn", ["a", "b"], ["c"]), ("zero_shot", ["a", "c"], ["b"])):
        *numbers, found_over, found_missing = found[f"natural/{protocol}"]
        assert numbers == pytest.approx([0.3, 0.3, 0.3])
        assert (found_over, found_missing) == (over, missing)
    assert set(found) == {"natural/knn", "natural/zero_shot", "all/knn", "all/zero_shot"}


def test_its_interval_is_that_of_drawing_the_images_of_every_set() -> None:
    rng = np.random.default_rng(0)
    rights = {name: rng.random(size) < share for name, size, share in (("a", 900, 0.2), ("b", 400, 0.6))}
    outcomes = {f"{name}/knn": Answers(torch.from_numpy(right)[None]) for name, right in rights.items()}
    found = group_means(
        named_metrics(outcomes), named_intervals(outcomes), groups={"g": dict.fromkeys("ab", "acc1")}
    )
    drawn = [rng.choice(right, (20_000, len(right))).mean(axis=1) for right in rights.values()]
    expected = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    assert found["g/knn"][1:3] == pytest.approx(expected, abs=0.003)


def test_the_mean_of_one_set_has_its_interval() -> None:
    outcomes = {"a/knn": Answers(torch.zeros(1, 40, dtype=torch.bool))}
    ends = named_intervals(outcomes)
    found = group_means(named_metrics(outcomes), ends, groups=GROUPS)
    assert found["all/knn"][1:3] == pytest.approx(ends["a/knn/acc1"])
    assert found["all/knn"].high > 0.05
