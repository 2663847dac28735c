"""Runs that go on from another one: further, or on other data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from pipelines.checkpoints.checkpoint import TRAINING
from pipelines.checkpoints.store import RunManifest
from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from pipelines.training.continuation import find_start
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
MakeShards = Callable[[Path, list[list[str]]], Path]
MACHINE = MachineConfig(num_workers=0)
CONSTANT: dict[str, Any] = {"lr_schedule": {"name": "constant", "warmup_steps": 1}}


def steps(number: int) -> dict[str, Any]:
    return CONSTANT | {"training": {"length": {"steps": number}}}


def train(run: RunConfig, output: Path, *, parent: Path | None = None) -> RunManifest:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    start = find_start(parent, run).checkpoint if parent else None
    return pretrain(resolve(run, MACHINE, start=start), output, machine=MACHINE, journal=journal)


def test_a_finished_run_is_extended_to_the_run_that_was_longer_from_the_start(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    train(tiny_run(**steps(3)), tmp_path / "short")
    longer = tiny_run(**steps(6))
    extended = train(longer, tmp_path / "extended", parent=tmp_path / "short")
    whole = train(longer, tmp_path / "whole")
    assert extended.digest == whole.digest
    assert train(longer, tmp_path / "extended", parent=tmp_path / "short").digest == whole.digest
    start = find_start(tmp_path / "short", longer)
    names = {resolve(longer, MACHINE, start=one).folder_name for one in (start.checkpoint, None)}
    assert len(names) == 2  # a run of its own
    assert '"parent": "short/step_0000003"' in (tmp_path / "journal-extended" / "journal.jsonl").read_text()


def test_what_the_schedule_becomes_is_said(tiny_run: MakeRun, tmp_path: Path) -> None:
    short = tiny_run(lr_schedule={"warmup_steps": 1}, training={"length": {"steps": 4}})
    train(short, tmp_path / "short")
    longer = tiny_run(lr_schedule={"warmup_steps": 1}, training={"length": {"steps": 8}})
    told = find_start(tmp_path / "short", longer).told(longer)
    assert "at step 4 of 8; lr_schedule cosine is that of all 8 steps: " in told
    rates = short.learning_rate(3), longer.learning_rate(4)
    assert f"the learning rate was {rates[0]:.3g}, and is {rates[1]:.3g} now" in told
    assert rates[0] < rates[1]


def test_a_run_goes_on_with_the_optimizer_on_other_data(
    tiny_run: MakeRun, make_shards: MakeShards, tmp_path: Path
) -> None:
    train(tiny_run(**steps(3)), tmp_path / "parent")
    others = make_shards(tmp_path / "others", [[f"a green square number {i}"] for i in range(16)])
    other = tiny_run(**steps(5), data={"shards": str(others)})
    manifest = train(other, tmp_path / "child", parent=tmp_path / "parent")
    training = torch.load(tmp_path / "child" / manifest.checkpoint / TRAINING, weights_only=True)
    assert {int(state["step"]) for state in training["optimizer"]["state"].values()} == {5}
    assert manifest.digest != train(tiny_run(**steps(5)), tmp_path / "same").digest


def test_what_cannot_go_on_is_refused_in_one_line(tiny_run: MakeRun, tmp_path: Path) -> None:
    train(tiny_run(**steps(3)), tmp_path / "run")
    for run, said in (
        (tiny_run(**steps(3)), "has done 3 steps, and the run has 3; raise training.length"),
        (
            tiny_run(**steps(6), objective={"embed_dim": 4}),
            "objective.embed_dim was 8, now 4; set them as they",
        ),
        (tiny_run(**steps(6), optimizer={"layer_decay": 0.5}), "optimizer.layer_decay was 1.0, now 0.5"),
    ):
        with pytest.raises(ConfigError) as raised:
            find_start(tmp_path / "run", run)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_command_refuses_a_folder_that_is_no_run(tiny_run: MakeRun, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(to_dict(tiny_run())))
    said = CliRunner().invoke(main, ["pretrain", str(file), "--from", str(tmp_path)])
    assert said.exit_code == 2
    assert f"{tmp_path} is neither a checkpoint nor a finished run" in said.output
