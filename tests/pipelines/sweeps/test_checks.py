"""Mistakes in a sweep that cost no work."""

from typing import Any

import pytest

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.sweeps.settings import SweepConfig
from tests.pipelines.sweeps.tiny import METRIC, SWEEP, check, mistake, sweep_config

PBT = {"name": "pbt", "perturbation_interval": 10}
CLUSTER = {"run": "cluster_rgb", "scheduler": {"name": "none"}}


def test_the_sweep_itself_passes() -> None:
    assert mistake(sweep_config()) is None


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
        ({"max_gpu_hours": 1}, r"max_gpu_hours is 1 and machine\.use_gpu is false"),
        (
            {"scheduler": PBT | {"perturbation_interval": 40}},
            r"perturbation_interval is 40 and a trial has 40",
        ),
        ({"scheduler": PBT, "seeds": 2}, r"seeds is 2, .* scheduler\.name is pbt; set seeds to 1"),
        ({"scheduler": PBT, "search": {"name": "tpe"}}, r"search\.name is tpe, .*set search\.name to random"),
        *(
            ({"scheduler": PBT, "space": {key: {"choice": values}}}, rf"space\.{key}: .*pbt.*take it out")
            for key, values in {
                "image_encoder.depth": [1, 2],
                "training.batch_size": [10, 20],
                "training.precision": ["fp32", "bf16"],
                "optimizer.layer_decay": [0.5, 0.9],
                "optimizer": [{"name": "adamw"}, {"name": "lars"}],
                "seed": [1, 2],
            }.items()
        ),
        (
            {"scheduler": PBT, "overrides": {"evaluation.every_steps": 10, "training.length.flops": 4e9}},
            r"training\.length: with pbt all trials have as many steps",
        ),
        ({"from_step": 40}, r"from_step is 40 and the run has 40 steps"),
        ({"from_step": 0}, r"from_step must be at least 1"),
        *(
            (
                {"from_step": 10, "space": {key: {"choice": values}}},
                rf"space\.{key}: .* acts before step 10 \(from_step\)",
            )
            for key, values in {
                "optimizer.lr": [0.001, 0.002],
                "optimizer.weight_decay": [0.1, 0.2],
                "mask.mask_ratio": [0.25, 0.75],
                "image_encoder.depth": [1, 2],
                "lr_schedule.min_lr": [0.0, 0.0001],
                "seed": [0, 1],
            }.items()
        ),
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
    assert mistake(sweep_config(space={"mask.mask_ratio": {"choice": [constant, growing]}})) is None
    overrides = SWEEP["overrides"] | {"mask.mask_ratio": {"start": 0.2, "end": 0.5}}
    assert (
        mistake(sweep_config(overrides=overrides, space={"mask.mask_ratio.end": {"uniform": [0.3, 0.8]}}))
        is None
    )


def test_two_samplers_under_a_key_of_a_file_are_named_with_the_file() -> None:
    given = SWEEP | {"space": {"mask.mask_ratio": {"uniform": [0, 1], "choice": [1]}}}
    with pytest.raises(ConfigError, match=r"^sweep\.yaml: space\.mask\.mask_ratio: takes one sampler"):
        build(SweepConfig, Layers().add(given, "sweep.yaml"))


def test_flops_and_samples_are_lengths_that_trials_can_have() -> None:
    for length in ({"samples": 800}, {"flops": 1e9}):
        ((key, value),) = length.items()
        overrides = SWEEP["overrides"] | {f"training.length.{key}": value}
        assert (
            mistake(sweep_config(overrides=overrides, scheduler={"name": "none"}, metrics={METRIC: "max"}))
            is None
        )


def test_settings_that_act_after_shared_steps_pass() -> None:
    """The end of the rate, of the mask's schedule, and the tuning."""
    constant = {"lr_schedule": {"name": "constant", "warmup_steps": 2}}
    rising = {"start": 0.25, "end": 0.5, "begin": 0.5}
    overrides = (
        SWEEP["overrides"] | constant | {"mask.mask_ratio": rising, "tuning": {"steps": 5, "lr": 1e-4}}
    )
    space = {
        "lr_schedule.cooldown_steps": {"randint": [0, 21]},
        "mask.mask_ratio.end": {"uniform": [0.3, 0.9]},
        "tuning.lr": {"loguniform": [1e-5, 1e-3]},
        "training.length.steps": {"choice": [40]},
    }
    check(sweep_config(overrides=overrides, space=space, from_step=20, scheduler={"name": "none"}))
    del space["mask.mask_ratio.end"]  # it acts from step 20 on
    with pytest.raises(ConfigError, match=r"space\.lr_schedule\.cooldown_steps: 20 acts before step 22"):
        check(sweep_config(overrides=overrides, space=space, from_step=22, scheduler={"name": "none"}))


def test_a_population_may_change_rates_decay_masks_and_norms() -> None:
    space = {
        "optimizer.lr": {"loguniform": [1e-4, 1e-2]},
        "optimizer.weight_decay": {"uniform": [0.0, 0.5]},
        "mask": {"choice": [{"name": "random", "mask_ratio": 0.5}, {"name": "none"}]},
        "lr_schedule": {"choice": [{"name": name, "warmup_steps": 2} for name in ("cosine", "constant")]},
        "training.max_grad_norm": {"choice": [1.0, 5.0]},
    }
    assert mistake(sweep_config(space=space, scheduler=PBT)) is None


def test_conditional_settings_are_checked_at_every_corner() -> None:
    space: dict[str, Any] = {
        "mask": {"choice": [{"name": "random", "mask_ratio": 0.5}, {"name": "cluster", "feature": "mix"}]},
        "mask.alpha_power": {"uniform": [1, 3], "when": {"mask.name": "cluster"}},
        "mask.mask_ratio": {"choice": [0.25, 0.75], "when": {"mask.name": "random"}},
    }
    check(sweep_config(space=space, scheduler={"name": "none"}))
    space["mask.alpha_power"]["uniform"] = [-1, 3]
    with pytest.raises(ConfigError, match=r"space: mask=.*alpha_power=-1.0: .*alpha_power must be above"):
        check(sweep_config(space=space, scheduler={"name": "none"}))
