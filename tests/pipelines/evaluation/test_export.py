"""`vlp export`: a run's last checkpoint for another library, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from pipelines.checkpoints.checkpoint import find_checkpoint, read_run
from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import EvaluationManifest
from pipelines.evaluation.measured_model import MeasuredModel
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.checkpoint import MODEL, load_weights
from vlp.metrics.intervals import Interval
from vlp.run import RunConfig


@pytest.fixture
def run(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal")
    journal.begin(name="run", tags={})
    pretrain(tiny_run(), tmp_path / "run", machine=MachineConfig(num_workers=0), journal=journal)
    return tmp_path / "run"


def export(run: Path, output: Path, format: str) -> Result:
    command = ["export", f"checkpoint={run}", "--format", format, "-o", str(output)]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_the_weights_are_the_checkpoints_and_the_card_has_what_was_measured(
    run: Path, tmp_path: Path
) -> None:
    import torch

    checkpoint = find_checkpoint(run)
    EvaluationManifest(
        digest="",
        step=4,
        metrics={"dev/knn/acc1": 0.25},
        intervals={"dev/knn/acc1": Interval(0.2, 0.3)},
        model=MeasuredModel.of(read_run(checkpoint)),
    ).write(checkpoint.parent / "evaluation")
    assert export(run, tmp_path / "out", "safetensors").output == f"[export] -> {tmp_path / 'out'}\n"
    weights, trained = (
        load_file(tmp_path / "out" / "model.safetensors"),
        load_weights(checkpoint / MODEL, torch.device("cpu")),
    )
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], x) for name, x in trained.items())
    assert "| dev/knn/acc1 | 0.2500 | 0.2000 to 0.3000 |" in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_exported_is_told_in_one_line(run: Path, tmp_path: Path) -> None:
    cases = [
        (run, "keras", "--format: format is 'keras'; valid: huggingface, "),
        (tmp_path, "timm", "no model.safetensors"),
    ]
    for given, format, said in cases:
        refused(export(given, tmp_path / "out", format), said)
    (find_checkpoint(run) / MODEL).write_bytes(b"x")
    refused(export(run, tmp_path / "out", "timm"), "is broken")
    assert not (tmp_path / "out").exists()


def refused(result: Result, said: str) -> None:
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert line.startswith("vlp: ")
    assert said in line
