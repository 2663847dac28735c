"""What a sweep proposes, stops and names the best is a function of its history, wherever that was cut."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.machine import MachineConfig
from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import FILE_NAME, History, Run
from pipelines.sweeps.report import Outcome
from pipelines.sweeps.retention import drop_checkpoints
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.standings import best_of, front, standings
from tests.pipelines.sweeps.tiny import METRIC, SWEEP, conductor_of, sweep_config

TEXT = "val/tiny_world/image_to_text/recall@5"
Measure = Callable[[dict[str, Any], int, int], dict[str, float]]


def measure(values: dict[str, Any], seed: int, step: int) -> dict[str, float]:
    """Scores that grow with the steps; the best ratio is 0.5, and seeds differ a little."""
    ratio = values["mask.mask_ratio"]
    score = (1 - abs(ratio - 0.5)) * step / 40 + 0.01 * math.sin(100 * ratio + seed)
    return {METRIC: score, TEXT: ratio}


class Killed(BaseException):
    """The sweep's process is gone."""


def play(conductor: Conductor, *, results: float = math.inf, measure: Measure = measure) -> None:
    """Train one run after another, each from its last checkpoint on; is killed behind so many results."""
    conductor.history.begin()
    while (run := conductor.next_run()) is not None:
        assert isinstance(run, Run)
        stretch = conductor.stretch(run)
        values = stretch.values or {"mask.mask_ratio": 0.5}
        start = conductor.history.trace(run).last_step
        for step in range(max(10, start), stretch.until + 1, 10):  # the last one again, as after a resume
            stops = conductor.measured(run, step, measure(values, run.seed, step))
            results -= 1
            if results < 0:
                raise Killed
            if stops:
                break
        conductor.ended(run)


def events(folder: Path) -> list[Any]:
    """What happened, without times and beginnings."""
    lines = (folder / FILE_NAME).read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k != "time"} for line in lines if "began" not in line
    ]


SEARCHES = [
    {"search": {"name": "random"}},
    {"search": {"name": "tpe", "num_random": 2}},
    {
        "search": {"name": "grid"},
        "space": {"mask.mask_ratio": {"grid": [0.2, 0.4, 0.6, 0.8]}},
        "num_trials": None,
    },
]
NONE, ASHA = {"name": "none"}, {"name": "asha", "grace_steps": 10}
MEDIAN = {"name": "median", "grace_steps": 10, "min_trials": 1}
PBT = {"name": "pbt", "perturbation_interval": 10, "quantile_fraction": 0.5}
RANDOM, TPE, GRID = SEARCHES


@pytest.mark.parametrize(
    ("search", "scheduler", "seeds"),
    [
        (RANDOM, ASHA, 1),
        (TPE, NONE, 1),
        (TPE, ASHA, 1),
        (GRID, MEDIAN, 1),
        (RANDOM, ASHA, 2),
        (GRID, NONE, 2),
        (RANDOM, PBT, 1),
        (GRID, PBT | {"perturbation_interval": 20}, 1),
        (RANDOM | {"from_step": 20}, ASHA, 2),
        (GRID | {"from_step": 10}, PBT, 1),
    ],
)
def test_a_sweep_that_is_killed_anywhere_comes_to_the_same_trials_decisions_and_winner(
    tmp_path: Path, search: dict[str, Any], scheduler: dict[str, Any], seeds: int
) -> None:
    config = sweep_config(**{"num_trials": 4} | search | {"scheduler": scheduler, "seeds": seeds})
    play(conductor_of(config, tmp_path / "whole"))
    whole = events(tmp_path / "whole")
    for results in range(0, sum(event["kind"] == "measured" for event in whole), 5):
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.raises(Killed):
            play(conductor_of(config, folder), results=results)
        with (folder / FILE_NAME).open("ab") as file:
            file.write(b'{"kind": "measu')  # a line that was not written whole
        play(conductor_of(config, folder))
        assert events(folder) == whole
    first, second = (best(config, tmp_path / name) for name in ("whole", "cut"))
    assert first == second


def best(config: SweepConfig, folder: Path) -> Any:
    return best_of(standings(History(folder), config), config)


@pytest.mark.parametrize("search", [RANDOM, TPE], ids=["random", "tpe"])
def test_a_sweep_that_is_given_more_trials_later_is_the_one_that_had_them_at_once(
    tmp_path: Path, search: dict[str, Any]
) -> None:
    few, many = (sweep_config(**search | {"num_trials": count}) for count in (3, 6))
    play(conductor_of(many, tmp_path / "at once"))
    play(conductor_of(few, tmp_path / "later"))
    assert len(History(tmp_path / "later").settings) == 3
    play(conductor_of(many, tmp_path / "later"))
    assert events(tmp_path / "later") == events(tmp_path / "at once")


def test_a_sweep_that_is_given_more_seeds_later_trains_each_setting_by_them(tmp_path: Path) -> None:
    play(conductor_of(sweep_config(scheduler={"name": "none"}), tmp_path))
    assert {run.seed for run in History(tmp_path).runs} == {0}
    play(conductor_of(sweep_config(scheduler={"name": "none"}, seeds=3), tmp_path))
    assert len([run for run, trace in History(tmp_path).runs.items() if trace.is_finished]) == 9


def test_settings_that_come_to_the_same_are_trained_once(tmp_path: Path, capsys: Any) -> None:
    config = sweep_config(
        run="cluster_rgb",
        space={"mask.anchor_ratio": {"grid": [0.021, 0.0226, 0.1, 0.12]}},
        search={"name": "grid"},
        num_trials=None,
        scheduler={"name": "none"},
    )
    conductor = conductor_of(config, tmp_path)
    play(conductor, measure=lambda values, seed, step: {METRIC: values["mask.anchor_ratio"]})
    assert conductor.num_ended() == conductor.num_runs() == 2
    # 16 patches: 1, 1, 2 and 2 anchors
    assert [setting.values["mask.anchor_ratio"] for setting in conductor.history.settings] == [0.021, 0.1]
    assert (
        "mask.anchor_ratio=0.0226 (1 of 16 patches) comes to what is tried already" in capsys.readouterr().out
    )


def test_a_search_of_few_points_ends_when_all_are_tried(tmp_path: Path) -> None:
    config = sweep_config(space={"mask.mask_ratio": {"choice": [0.25, 0.5, 0.75]}}, num_trials=20)
    conductor = conductor_of(config, tmp_path)
    play(conductor)
    ratios = [setting.values["mask.mask_ratio"] for setting in conductor.history.settings]
    assert sorted(ratios) == [0.25, 0.5, 0.75]
    assert conductor.is_done


def test_the_winner_is_by_the_mean_of_the_seeds_and_of_the_step_that_is_asked_for(tmp_path: Path) -> None:
    space = {"mask.mask_ratio": {"grid": [0.2, 0.6]}}
    asked = {"space": space, "search": {"name": "grid"}, "num_trials": None, "scheduler": {"name": "none"}}
    scores = {
        (0.2, 0): [0.1, 0.9, 0.2, 0.3],
        (0.2, 1): [0.1, 0.1, 0.2, 0.5],
        (0.6, 0): [0.3, 0.3, 0.3, 0.5],
        (0.6, 1): [0.3, 0.3, 0.3, 0.5],
    }
    config = sweep_config(seeds=2, **asked)
    play(
        conductor_of(config, tmp_path),
        measure=lambda values, seed, step: {METRIC: scores[values["mask.mask_ratio"], seed][step // 10 - 1]},
    )
    for score, ratio, mean, spread in (
        ("last", 0.6, 0.5, 0.0),
        ("best", 0.2, 0.7, math.dist([0.9], [0.7]) * 2**0.5),
        (20, 0.2, 0.5, 0.4 * 2**0.5),
    ):
        config = sweep_config(seeds=2, score=score, **asked)
        winner = best(config, tmp_path)
        assert History(tmp_path).settings[winner.number].values == {"mask.mask_ratio": ratio}
        assert winner.scores[METRIC] == pytest.approx((mean, spread))
        said = Outcome.of(config, conductor_of(config, tmp_path).trials, History(tmp_path)).said(winner)
        assert said.endswith(
            {"last": "after the last step", "best": "after the best step of each trial"}.get(
                str(score), "after 20 steps"
            )
        )


def test_a_front_is_of_whole_trainings_that_no_other_dominates(tmp_path: Path) -> None:
    ratios = [0.4, 0.5, 0.2, 0.6]
    config = sweep_config(
        space={"mask.mask_ratio": {"grid": ratios}},
        search={"name": "grid"},
        num_trials=None,
        metrics={METRIC: "max", TEXT: "min"},
    )
    play(conductor_of(config, tmp_path))
    history = History(tmp_path)
    assert history.trace(Run(2, 0)).stopped_at == 10  # the best in the second metric, so far
    found = [
        history.settings[one.number].values["mask.mask_ratio"]
        for one in front(standings(history, config), config)
    ]
    assert sorted(found) == [0.4, 0.5]


def test_a_setting_that_is_stopped_by_one_seed_is_spared_the_others(tmp_path: Path) -> None:
    config = sweep_config(seeds=2, num_trials=4)
    conductor = conductor_of(config, tmp_path)
    play(conductor)
    stopped = {run.setting for run, trace in conductor.history.runs.items() if trace.stopped_at}
    assert stopped
    for number in stopped:
        assert not conductor.history.trace(Run(number, 1)).results
    assert conductor.num_ended() == conductor.num_runs()


def test_what_fails_has_no_winner_and_is_tried_again_by_the_next_process(tmp_path: Path) -> None:
    config = sweep_config(scheduler={"name": "none"})
    conductor = conductor_of(config, tmp_path)
    conductor.history.begin()
    run = conductor.next_run()
    assert isinstance(run, Run)
    conductor.failed(run, "no space left")
    while isinstance(other := conductor.next_run(), Run):
        assert other != run
        for step in (10, 20, 30, 40):
            conductor.measured(other, step, {METRIC: 0.5})
        conductor.ended(other)
    assert conductor.failures() == ["no space left"]
    again = conductor_of(config, tmp_path)
    play(again)
    assert again.failures() == []
    assert again.is_done
    assert again.num_ended() == 3


def test_what_a_run_measures_before_it_has_ended_changes_nothing_once_it_is_stopped(tmp_path: Path) -> None:
    conductor = conductor_of(sweep_config(num_trials=2), tmp_path)
    conductor.history.begin()
    for score, stops in ((0.5, False), (0.1, True)):
        run = conductor.next_run()
        assert isinstance(run, Run)
        assert conductor.measured(run, 10, {METRIC: score}) == stops
        before = events(tmp_path)
        assert conductor.measured(run, 20, {METRIC: 0.9}) == stops
        assert (events(tmp_path) == before) == stops
    conductor.ended(run)
    assert conductor.history.trace(run).stopped_at == 10


def test_a_metric_that_is_not_there_fails_the_trial(tmp_path: Path) -> None:
    conductor = conductor_of(sweep_config(), tmp_path)
    conductor.history.begin()
    run = conductor.next_run()
    assert isinstance(run, Run)
    assert conductor.measured(run, 10, {"val/other": 0.5})
    assert conductor.failures() == [f"{METRIC} was not measured"]


def test_after_the_hours_nothing_new_is_tried(tmp_path: Path) -> None:
    conductor = conductor_of(sweep_config(max_hours=1e-9), tmp_path)
    play(conductor)
    assert len(conductor.history.settings) == 1
    assert conductor.is_done


def test_trials_of_one_cost_are_compared_at_the_same_share_of_it(tmp_path: Path) -> None:
    """By FLOPs, a run that hides much has more steps."""
    overrides = SWEEP["overrides"] | {"training.length.flops": 4e9}
    config = sweep_config(
        overrides=overrides,
        space={"mask.mask_ratio": {"grid": [0.2, 0.7]}},
        search={"name": "grid"},
        num_trials=None,
    )
    conductor = conductor_of(config, tmp_path)
    steps = [conductor.trials.config({"mask.mask_ratio": ratio}).num_steps for ratio in (0.2, 0.7)]
    assert steps[0] < conductor.base_steps < steps[1]
    conductor.history.begin()
    first = conductor.next_run()
    assert isinstance(first, Run)
    assert not conductor.measured(first, 10, {METRIC: 0.5})
    second = conductor.next_run()
    assert isinstance(second, Run)
    # Fewer than 10 steps of the sweep's own run at this cost: not at the rung yet.
    assert 10 * conductor.base_steps / steps[1] < 10
    assert not conductor.measured(second, 10, {METRIC: 0.1})
    assert conductor.measured(second, 20, {METRIC: 0.1})


@pytest.mark.parametrize(("keep", "stay"), [("all", {0, 1, 2}), ("best", {2}), ("none", set())])
def test_checkpoints_of_ended_trials_stay_by_the_policy(tmp_path: Path, keep: str, stay: set[int]) -> None:
    config = sweep_config(
        space={"mask.mask_ratio": {"grid": [0.2, 0.3, 0.5]}},
        search={"name": "grid"},
        num_trials=None,
        scheduler={"name": "none"},
        keep_checkpoints=keep,
    )
    conductor = conductor_of(config, tmp_path)
    for number in range(3):
        (conductor.trials.output(Run(number, 0).key) / "checkpoints").mkdir(parents=True)
    play(conductor)
    drop_checkpoints(conductor)
    left = {
        number
        for number in range(3)
        if (conductor.trials.output(Run(number, 0).key) / "checkpoints").exists()
    }
    assert left == stay


def test_a_population_waits_and_the_worst_go_on_with_the_best_ones_weights(tmp_path: Path) -> None:
    ratios = {"mask.mask_ratio": {"grid": [0.5, 0.3, 0.8, 0.4]}}
    pbt = PBT | {"perturbation_interval": 20, "quantile_fraction": 0.25, "resample_probability": 0.0}
    config = sweep_config(space=ratios, search={"name": "grid"}, num_trials=None, scheduler=pbt)
    conductor = conductor_of(config, tmp_path)
    conductor.history.begin()
    order = []
    while isinstance(run := conductor.next_run(), Run):
        stretch = conductor.stretch(run)
        order.append((run.setting, stretch.folder, stretch.start, stretch.until))
        for step in range(max(10, conductor.history.trace(run).last_step), stretch.until + 1, 10):
            score = 1 - abs(conductor.history.settings[run.setting].values["mask.mask_ratio"] - 0.5)
            conductor.measured(run, step, {METRIC: score})
        conductor.ended(run)
    start = "0000/checkpoints/step_0000020"
    assert order == [
        *((number, f"000{number}", None, 20) for number in range(4)),
        (0, "0000", None, 40),
        (1, "0001", None, 40),
        (2, "0002-from20", start, 40),
        (3, "0003", None, 40),
    ]
    history = History(tmp_path)
    assert history.settings[2].values["mask.mask_ratio"] in (0.5, 0.3)  # the first of the list, or the next
    assert history.trace(Run(2, 0)).results[20] == history.trace(Run(0, 0)).results[20]
    assert conductor.is_done


def test_a_member_that_was_cut_before_its_checkpoint_is_trained_to_the_pause_again(tmp_path: Path) -> None:
    config = sweep_config(num_trials=2, scheduler=PBT | {"perturbation_interval": 20})
    conductor = conductor_of(config, tmp_path)
    conductor.history.begin()
    for _ in range(2):
        run = conductor.next_run()
        assert isinstance(run, Run)
        for step in (10, 20):
            conductor.measured(run, step, measure({"mask.mask_ratio": 0.3 + run.setting / 10}, 0, step))
        if run.setting == 0:
            conductor.ended(run)
    again = conductor_of(config, tmp_path)
    again.history.begin()
    assert again.next_run() == Run(1, 0)
    assert again.next_run() == "wait"
    again.ended(Run(1, 0))
    assert again.next_run() == Run(0, 0)
    assert again.history.exchanged_at == 20


def test_a_failed_member_ends_the_population(tmp_path: Path) -> None:
    conductor = conductor_of(sweep_config(num_trials=3, scheduler=PBT), tmp_path)
    conductor.history.begin()
    while isinstance(run := conductor.next_run(), Run):
        if run.setting == 1:
            conductor.failed(run, "no space left")
        else:
            conductor.measured(run, 10, {METRIC: 0.5})
            conductor.ended(run)
    assert conductor.history.exchanged_at == 0
    assert not conductor.is_done


def test_shared_steps_are_trained_first_once_for_each_seed(tmp_path: Path) -> None:
    config = sweep_config(from_step=20, seeds=2, num_trials=2, scheduler=NONE)
    conductor = conductor_of(config, tmp_path)
    play(conductor)
    begun = [(event["run"], event["step"]) for event in events(tmp_path) if event["kind"] == "measured"]
    assert begun[:4] == [([-1, 0], 10), ([-1, 0], 20), ([-1, 1], 10), ([-1, 1], 20)]
    assert conductor.num_ended() == conductor.num_runs() == 4
    assert conductor.stretch(Run(1, 1)).start == "shared-seed1/checkpoints/step_0000020"


@pytest.mark.parametrize("keep", ["best", "none"])
def test_checkpoints_that_others_begin_from_stay_until_they_have_begun(tmp_path: Path, keep: str) -> None:
    changes = {"num_trials": 2, "keep_checkpoints": keep, "from_step": 20}
    conductor = conductor_of(sweep_config(scheduler=NONE, **changes), tmp_path)
    shared = conductor.trials.output("shared") / "checkpoints"
    shared.mkdir(parents=True)
    conductor.history.begin()
    while isinstance(run := conductor.next_run(), Run):
        assert shared.exists()
        for step in range(10, conductor.stretch(run).until + 1, 10):
            conductor.measured(run, step, {METRIC: 0.5})
        conductor.ended(run)
        drop_checkpoints(conductor)
    assert not shared.exists()


def test_a_limit_of_gpu_hours_counts_what_trials_held(tmp_path: Path, monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    config = sweep_config(max_gpu_hours=0.25, num_trials=5, scheduler=NONE)
    conductor = conductor_of(config, tmp_path)
    machine = MachineConfig(use_gpu=True, num_workers=2)
    conductor.trials = replace(conductor.trials, machine=machine)

    def measured(values: dict[str, Any], seed: int, step: int) -> dict[str, float]:
        now[0] += 60.0  # 4 x 60 s x 2 GPUs are 480 s
        return measure(values, seed, step)

    play(conductor, measure=measured)
    assert len(conductor.history.settings) == 2
    assert History(tmp_path).gpu_seconds == 960
