"""Mistakes in a sweep that cost no work."""

from typing import Any

import pytest

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.sweeps.settings import SweepConfig
from tests.pipelines.sweeps.tiny import METRIC, SWEEP, check, sweep_config

CLUSTER = {"run": "cluster_rgb", "scheduler": {"name": "none"}}


def test_the_sweep_itself_passes() -> None:
    check(sweep_config())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"metrics": {"val/tiny_world/text_to_image/recal@5": "max"}},
            r"did you mean val/tiny_world/text_to_im",
        ),
        ({"metrics": {"val/other/knn/acc1": "max"}}, r"metrics: val/other/knn/acc1 is not measured of flip"),
        ({"metrics": {"loss": "min"}}, r"metrics: loss is not measured of flip \(contrastive\)"),
        ({"metrics": {}}, r"metrics is empty"),
        ({"overrides": {}}, r"evaluation\.every_steps is missing.*such as to 13"),
        ({"score": 15}, r"score is step 15, .*every 10 of 40 steps .*; set it to 10"),
        ({"score": 50}, r"score is step 50, after which nothing is measured"),
        ({"score": 0}, r"score is step 0, after which nothing is measured"),
        ({"scheduler": {"name": "asha", "grace_steps": 0}}, r"grace_steps must be at least 1, got 0"),
        ({"scheduler": {"name": "asha", "grace_steps": 40}}, r"grace_steps is 40 and a trial has 40 steps"),
        ({"scheduler": {"name": "asha", "grace_steps": 15}}, r"grace_steps is 15, .*set it to 10 or 20"),
        ({"scheduler": {"name": "median", "grace_steps": 5}}, r"grace_steps is 5, .*set it to 10"),
        (
            {"scheduler": {"name": "asha", "grace_steps": 10, "reduction_factor": 1}},
            r"reduction_factor must be above 1, got 1",
        ),
        ({"scheduler": {"name": "ahsa"}}, r"scheduler\.name is 'ahsa'"),
        ({"search": {"name": "bayes"}}, r"search\.name is 'bayes'"),
        ({"num_trials": None}, r"num_trials is missing"),
        ({"space": {"mask.mask_ratio": {"grid": [0.1, 0.2]}}}, r"space\.mask\.mask_ratio: .*write choice"),
        ({"search": {"name": "grid"}}, r"write grid: \[\.\.\.\] in place of uniform"),
        ({"search": {"name": "tpe"}, "space": {"seed": {"grid": [1]}}}, r"search\.name is tpe; write choice"),
        (
            {"overrides": {"mask.mask_ratio": 0.5}},
            r"space\.mask\.mask_ratio and overrides\.mask\.mask_ratio set",
        ),
        ({"seeds": 3, "space": {"seed": {"choice": [1, 2]}}}, r"take seed out of space"),
        ({"space": {"mask.no_such_key": {"choice": [1]}}}, r"no_such_key"),
        (
            {"overrides": {"training.length.seconds": 60}},
            r"length\.seconds: the trials of a sweep are compared",
        ),
        ({"run": "filp"}, r"has no run 'filp'; did you mean flip\?"),
    ],
)
def test_a_mistake_is_named_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check(sweep_config(**changes))
    assert "\n" not in str(error.value)


def test_a_corner_that_can_never_train_is_found_however_unlikely_its_draw() -> None:
    space = {
        "mask.anchor_ratio": {"loguniform": [0.001, 0.51]},
        "mask.target_mask_ratio": {"uniform": [0.5, 0.9]},
    }
    with pytest.raises(
        ConfigError, match=r"space: mask\.anchor_ratio=0\.5\d+ mask\.target_mask_ratio=0\.5.*above"
    ):
        check(sweep_config(space=space, **CLUSTER))


def test_a_corner_that_the_machine_cannot_divide_is_found() -> None:
    space = {"training.batch_size": {"choice": [20, 30, 33]}}
    with pytest.raises(
        ConfigError, match=r"space: training\.batch_size=33: training\.batch_size 33 is not a mult"
    ):
        check(sweep_config(space=space), MachineConfig(num_workers=2))


def test_a_metric_that_one_of_the_objectives_does_not_have_is_found() -> None:
    space = {"objective": {"choice": [{"name": "contrastive"}, {"name": "mae"}]}}
    with pytest.raises(ConfigError, match=r"is not measured of flip \(mae\).*needs a text encoder"):
        check(sweep_config(space=space))


def test_a_setting_that_decides_nothing_is_found() -> None:
    space = {"mask.alpha_power": {"choice": [1, 2]}}
    with pytest.raises(ConfigError, match=r"space\.mask\.alpha_power: decides nothing"):
        check(sweep_config(space=space, **CLUSTER))
    check(sweep_config(space=space | {"mask.feature": {"choice": ["rgb", "mix"]}}, **CLUSTER))


def test_a_schedule_is_a_dimension() -> None:
    constant, growing = 0.5, {"start": 0.2, "end": 0.7}
    check(sweep_config(space={"mask.mask_ratio": {"choice": [constant, growing]}}))
    overrides = SWEEP["overrides"] | {"mask.mask_ratio": {"start": 0.2, "end": 0.5}}
    check(sweep_config(overrides=overrides, space={"mask.mask_ratio.end": {"uniform": [0.3, 0.8]}}))


def test_two_samplers_under_a_key_of_a_file_are_named_with_the_file() -> None:
    given = SWEEP | {"space": {"mask.mask_ratio": {"uniform": [0, 1], "choice": [1]}}}
    with pytest.raises(ConfigError, match=r"^sweep\.yaml: space\.mask\.mask_ratio: takes one sampler"):
        build(SweepConfig, Layers().add(given, "sweep.yaml"))


def test_flops_and_samples_are_lengths_that_trials_can_have() -> None:
    for length in ({"samples": 800}, {"flops": 1e9}):
        ((key, value),) = length.items()
        overrides = SWEEP["overrides"] | {f"training.length.{key}": value}
        check(sweep_config(overrides=overrides, scheduler={"name": "none"}, metrics={METRIC: "max"}))
