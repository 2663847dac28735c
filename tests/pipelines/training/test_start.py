"""Runs that begin from the checkpoint of another run: with its weights, its optimizer and its step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoints.checkpoint import TRAINING, TrainingState, begin_from
from pipelines.checkpoints.store import RunManifest, checkpoint_name, list_saved
from pipelines.config.errors import ConfigError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.sweeps.first_steps import first_steps
from pipelines.tracking.journal import Journal
from pipelines.training.job import WHOLE, Part
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from tests.pipelines.runs import random_objective
from vlp.checkpoint import MODEL, load_weights
from vlp.run import RunConfig
from vlp.training.optim import build_optimizer

MakeRun = Callable[..., RunConfig]
MACHINE = MachineConfig(num_workers=0, checkpoints=CheckpointSettings(keep=1))
CPU = torch.device("cpu")
EIGHT = {"length": {"steps": 8}}
LONG: dict[str, Any] = {"training": EIGHT}
RISING = {"start": 0.25, "end": 0.75, "begin": 0.5}
EMBEDDING = {"name": "cluster", "feature": "embedding", "anchor_ratio": 0.2, "recalibrations": 4}


def train(run: RunConfig, output: Path, *, start: Path | None = None, part: Part = WHOLE) -> RunManifest:
    """Train in this process."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    found = resolve(run, MACHINE, start=start)
    return pretrain(found, output, machine=MACHINE, journal=journal, part=part)


def checkpoint(output: Path, step: int) -> Path:
    return output / "checkpoints" / checkpoint_name(step)


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        ({"lr_schedule": {"name": "constant", "warmup_steps": 1}}, {"lr_schedule": {"cooldown_steps": 3}}),
        ({"mask": {"name": "random", "mask_ratio": RISING | {"end": 0.5}}}, {"mask": {"mask_ratio": RISING}}),
        ({}, {"tuning": {"steps": 2, "lr": 1e-4}}),
        ({"mask": EMBEDDING, "training": {"ema": {"decay": 0.9}}}, {"tuning": {"steps": 2, "lr": 1e-4}}),
    ],
    ids=["cooldown", "mask", "tuning", "calibrated"],
)
def test_a_run_that_begins_from_shared_steps_is_the_one_that_trains_them(
    tiny_run: MakeRun, tmp_path: Path, shared: dict[str, Any], own: dict[str, Any]
) -> None:
    base = merge(LONG | {"lr_schedule": {"name": "constant", "warmup_steps": 1}}, shared)
    first, run = tiny_run(**base), tiny_run(**merge(base, own))
    assert first_steps(first, 4) == first_steps(run, 4)
    train(first, tmp_path / "first", part=Part(until=4))
    whole = train(run, tmp_path / "whole")
    begun = train(run, tmp_path / "begun", start=checkpoint(tmp_path / "first", 4))
    assert begun.digest == whole.digest
    assert train(first, tmp_path / "first").digest != whole.digest


def test_weights_and_optimizer_are_copied_and_settings_are_the_runs_own(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    train(tiny_run(), tmp_path / "donor")
    start = checkpoint(tmp_path / "donor", 3)
    run = tiny_run(optimizer={"lr": 1e-2, "weight_decay": 0.05}, mask={"mask_ratio": 0.75})
    objective = random_objective(run)
    state = TrainingState(objective, build_optimizer(objective, run.optimizer), None, run.mask)
    begin_from(start, state)
    assert (state.step, state.mask) == (3, run.mask)
    same_tensors(objective.state_dict(), load_weights(start / MODEL, CPU))
    donor = torch.load(start / TRAINING, weights_only=True)["optimizer"]
    own = state.optimizer.state_dict()
    for number, moments in donor["state"].items():
        same_tensors(own["state"][number], moments)
    decays = {group["weight_decay"] for group in own["param_groups"]}
    assert decays == {0.0, 0.05} != {group["weight_decay"] for group in donor["param_groups"]}


def test_a_mask_is_calibrated_by_the_weights_that_the_run_begins_with(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    hot = {"optimizer": {"lr": 0.1}, "mask": EMBEDDING}  # embeddings move far
    train(tiny_run(**hot), tmp_path / "donor")
    other = tiny_run(**merge(hot, {"mask": {"anchor_ratio": 0.3, "recalibrations": 0}}), training=EIGHT)
    train(other, tmp_path / "whole", part=Part(until=1))
    train(other, tmp_path / "begun", start=checkpoint(tmp_path / "donor", 3), part=Part(until=4))
    whole, begun = (json.loads((tmp_path / n / "calibration.json").read_text()) for n in ("whole", "begun"))
    assert whole["mask"]["threshold"] != begun["mask"]["threshold"]


def test_a_part_ends_with_a_checkpoint_and_those_that_others_begin_from_stay(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run, output = tiny_run(**LONG), tmp_path / "run"
    assert train(run, output, part=Part(until=2, kept=(2, 4))).steps == 2
    assert train(run, output, part=Part(until=6, kept=(2, 4))).steps == 6
    assert [one.step for one in list_saved(output / "checkpoints")] == [2, 6]
    whole = train(run, output)
    assert whole.digest == train(run, tmp_path / "whole").digest


def test_a_folder_whose_run_began_from_another_checkpoint_is_refused(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(tiny_run(seed=seed), tmp_path / f"donor{seed}")
    run = tiny_run(training=EIGHT)
    train(run, tmp_path / "run", start=checkpoint(tmp_path / "donor0", 3))
    with pytest.raises(ConfigError, match=r"start\.model\.safetensors was"):
        train(run, tmp_path / "run", start=checkpoint(tmp_path / "donor1", 3))


def same_tensors(some: Any, others: Any) -> None:
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        assert torch.equal(tensor, others[name]), name


def merge(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Settings on top of others."""
    return base | {
        key: merge(base.get(key, {}), value) if isinstance(value, dict) else value
        for key, value in update.items()
    }
