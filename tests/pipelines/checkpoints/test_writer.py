"""A checkpoint that is written while training goes on is the one of its step, whatever ends the run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from pipelines.checkpoints.checkpoint import Contents, TrainingState, save_checkpoint, write_settings
from pipelines.checkpoints.store import find_damage, list_saved, newest_whole
from pipelines.checkpoints.writer import CheckpointWriter
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.job import TrainJob
from pipelines.training.resolved import resolve
from tests.pipelines.runs import pretrain, random_objective
from tests.servers.disk import full_disk
from vlp.run import RunConfig
from vlp.training.optim import build_optimizer

MakeRun = Callable[..., RunConfig]
TRAIN = """
import sys
from pathlib import Path
from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain

journal = Journal(Path(sys.argv[2]) / "journal")
journal.begin(name="killed", tags={})
machine = MachineConfig(num_workers=0, checkpoints=CheckpointSettings(every_steps=1))
pretrain(read_run(Path(sys.argv[1])), Path(sys.argv[2]), machine=machine, journal=journal)
"""


@pytest.fixture
def state(tiny_run: MakeRun) -> TrainingState:
    run = tiny_run()
    objective = random_objective(run)
    return TrainingState(objective, build_optimizer(objective, run.optimizer), None, run.mask, step=1)


@pytest.fixture
def job(tiny_run: MakeRun, tmp_path: Path) -> TrainJob:
    machine = MachineConfig(num_workers=0, checkpoints=CheckpointSettings(keep=2))
    return TrainJob(resolve(tiny_run(), machine), machine, tmp_path / "run", Journal(tmp_path))


def change(state: TrainingState) -> None:
    """What a step does."""
    with torch.no_grad():
        for weight in state.objective.parameters():
            weight.add_(1)
    state.step += 1


def test_each_checkpoint_has_the_weights_of_its_step(state: TrainingState, job: TrainJob) -> None:
    expected = {}
    with CheckpointWriter(job.checkpoints, job.config) as writer:
        for _ in range(3):
            folder = job.output / "waited" / str(state.step)
            save_checkpoint(folder, Contents.of(job.config, state), metrics={"acc": state.step})
            expected[state.step] = (folder / "manifest.json").read_bytes()
            writer.save(state, {"acc": state.step})
            change(state)
    kept = {
        one.step: (job.checkpoints.folder / one.name / "manifest.json")
        for one in list_saved(job.checkpoints.folder)
    }
    assert list(kept) == [2, 3]
    assert all(file.read_bytes() == expected[step] for step, file in kept.items())
    assert all(find_damage(file.parent) is None for file in kept.values())


def train(state: TrainingState, job: TrainJob, *, last: int) -> None:
    with CheckpointWriter(job.checkpoints, job.config) as writer:
        while state.step < last:
            change(state)
            writer.save(state, {})


@pytest.mark.parametrize(("last", "reached"), [(2, 2), (9, 3)])
def test_a_full_disk_ends_the_run_at_the_next_checkpoint_or_at_its_end(
    last: int, reached: int, state: TrainingState, job: TrainJob
) -> None:
    """And the checkpoint before stays."""
    with CheckpointWriter(job.checkpoints, job.config) as writer:
        writer.save(state, {})
    with full_disk(), pytest.raises(OSError, match="no space left"):
        train(state, job, last=last)
    assert state.step == reached
    assert newest_whole(job.checkpoints.folder, label="tiny") == job.checkpoints.folder / "step_0000001"


def fail(state: TrainingState, job: TrainJob) -> None:
    with CheckpointWriter(job.checkpoints, job.config) as writer:
        writer.save(state, {})
        raise ZeroDivisionError


def test_an_error_in_training_goes_before_one_in_writing(
    state: TrainingState, job: TrainJob, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk(), pytest.raises(ZeroDivisionError):
        fail(state, job)
    assert "[pretrain tiny] the last checkpoint could not be written, too: " in capsys.readouterr().out


def test_a_run_that_is_killed_while_it_writes_goes_on_from_the_checkpoint_before(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    """To the weights of one that was left alone."""
    large = {"name": "contrastive", "text_encoder": {"width": 64, "depth": 1, "num_heads": 2}}
    run, cut = tiny_run(objective=large, training={"length": {"steps": 20}}), tmp_path / "cut"
    write_settings(tmp_path, run)
    kill_in_mid_save(cut, [sys.executable, "-c", TRAIN, str(tmp_path), str(cut)])
    (half,) = (cut / "checkpoints").glob("step_*.tmp")
    whole = newest_whole(cut / "checkpoints", label=run.name)
    assert whole is not None
    assert whole.name < half.name.removesuffix(".tmp")
    digests = []
    for output in (cut, tmp_path / "left alone"):
        journal = Journal(tmp_path / "journal")
        journal.begin(name=run.name, tags={})
        manifest = pretrain(run, output, machine=MachineConfig(num_workers=0), journal=journal)
        digests.append(manifest.digest)
    assert digests[0] == digests[1]


def kill_in_mid_save(output: Path, command: list[str]) -> None:
    """Halt a run whenever it may be writing a checkpoint but its first, and kill it if it is."""
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        while process.poll() is None:
            if half_written(output):
                process.send_signal(signal.SIGSTOP)
                while (
                    process.poll() is None and psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
                ):
                    time.sleep(0.001)
                process.send_signal(signal.SIGKILL if half_written(output) else signal.SIGCONT)
            time.sleep(0.001)
    assert process.returncode == -signal.SIGKILL, "the run ended before it was seen to write"


def half_written(output: Path) -> bool:
    checkpoints = output / "checkpoints"
    return bool(list(checkpoints.glob("step_*[0-9]"))) and bool(
        list(checkpoints.glob("step_*.tmp/training.pt"))
    )
