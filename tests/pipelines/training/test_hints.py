"""A run that learns nothing is told why that may be, once."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]


def train(run: RunConfig, output: Path) -> tuple[dict[str, str], list[dict[str, float]]]:
    """The hints of a run, and the metrics of its steps."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=MachineConfig(num_workers=0, log_every_steps=1), journal=journal)
    records = list(journal.read())
    tags = [record.fields["tags"] for record in records if record.kind == "tags"]
    steps = [record.fields["metrics"] for record in records if record.kind == "metrics"]
    hints = {name: line for tag in tags for name, line in tag.items() if name.startswith("hint.")}
    return hints, [values for values in steps if "train/loss" in values]


@pytest.fixture(scope="module")
def same_captions(make_shards: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("same") / "shards", [["a photo"]] * 24)


def test_captions_that_are_all_the_same_are_told_and_keep_the_loss_at_that_of_guessing(
    tiny_run: MakeRun, same_captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(
        data={"shards": str(same_captions)}, training={"length": {"steps": 80}}, optimizer={"lr": 0.003}
    )
    hints, steps = train(run, tmp_path / "run")
    assert all(values["worker/duplicate_captions"] == 1 for values in steps)
    assert all(values["worker/negatives"] == 0 for values in steps)
    assert steps[-1]["train/loss"] == pytest.approx(math.log(8), rel=0.01)
    assert hints.keys() == {"hint.duplicate_captions", "hint.stuck_loss"}
    assert "which is ln(8)" in hints["hint.stuck_loss"]
    assert "100% of this batch" in hints["hint.stuck_loss"]
    shown = capsys.readouterr().out
    for line in hints.values():
        assert "\n" not in line
        assert shown.count(line) == 1


def test_a_run_that_learns_hears_nothing(tiny_run: MakeRun, make_shards: Any, tmp_path: Path) -> None:
    own_captions = make_shards(tmp_path / "shards", [[f"number {i}"] for i in range(24)])
    data = {"shards": str(own_captions)}
    run = tiny_run(
        data=data, mask={"name": "none"}, training={"length": {"steps": 60}}, optimizer={"lr": 0.01}
    )
    hints, steps = train(run, tmp_path / "run")
    assert hints == {}
    assert [values["worker/negatives"] for values in steps] == 60 * [7]


def test_an_objective_without_negatives_logs_none(tiny_run: MakeRun, tmp_path: Path) -> None:
    hints, steps = train(tiny_run(objective={"name": "superclass"}), tmp_path / "run")
    assert hints == {}
    assert not any("worker/negatives" in values for values in steps)
