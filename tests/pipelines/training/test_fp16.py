"""A run in fp16 passes over steps that overflow, and goes on with the scale that it had."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipelines.checkpoints.checkpoint import MODEL
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
IN_THIS_PROCESS = MachineConfig(
    num_workers=0, log_every_steps=1, checkpoints=CheckpointSettings(every_steps=1, keep=99)
)


def train(run: RunConfig, output: Path) -> str:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=IN_THIS_PROCESS, journal=journal).digest


def test_a_step_that_overflows_changes_nothing_but_the_scale(tiny_run: MakeRun, tmp_path: Path) -> None:
    run, output = tiny_run(training={"length": {"steps": 8}, "precision": "fp16"}), tmp_path / "run"
    digest = train(run, output)
    records = [r.fields["metrics"] for r in Journal(tmp_path / "journal-run").read() if r.kind == "metrics"]
    scales = [metrics["weights/loss_scale"] for metrics in records if "weights/loss_scale" in metrics]
    assert len(scales) == 8
    folders = sorted((output / "checkpoints").glob("step_*"))
    weights = [load_file(folder / MODEL) for folder in folders]
    halved = [after < before for before, after in pairwise(scales[1:])]
    assert set(halved) == {False, True}
    for has_overflowed, (before, after) in zip(halved, pairwise(weights), strict=False):
        assert all(torch.equal(before[name], after[name]) for name in before) == has_overflowed

    shutil.rmtree(folders[-1])
    (output / "manifest.json").unlink()
    assert train(run, output) == digest
