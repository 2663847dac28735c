"""SIGTERM ends a training with a checkpoint, in order; hangs are noticed; no two runs share a folder."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipelines.checkpoints.store import list_saved
from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY
from tests.waiting import wait_until
from vlp.run import RunConfig

STEPS = 400
WAIT = 240
"""Seconds; a busy machine takes minutes to start Ray."""


class Training:
    """`vlp pretrain` in processes of their own, all in one folder."""

    def __init__(self, folder: Path, run: RunConfig) -> None:
        self.folder = folder
        self.file = folder / "run.yaml"
        self.file.write_text(yaml.safe_dump(to_dict(run)))
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *settings: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines", "pretrain", str(self.file), "-o", "run"]
        command += ["machine.log_every_steps=1", "machine.checkpoints.every_steps=1000", *settings]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    @property
    def journal(self) -> Journal:
        (folder,) = (self.folder / "results/journals/vlp").glob("*/journal.jsonl")
        return Journal(folder.parent)

    def last_step(self) -> int:
        """Of those that the journal has."""
        if not list((self.folder / "results/journals/vlp").glob("*/journal.jsonl")):
            return 0
        return max((r.fields["step"] for r in self.journal.read() if r.kind == "metrics"), default=0)

    def statuses(self) -> list[str]:
        return [record.fields["status"] for record in self.journal.read() if record.kind == "end"]

    def checkpoints(self) -> list[int]:
        return [one.step for one in list_saved(self.folder / "run/checkpoints")]


@pytest.fixture
def training(tiny_run: Callable[..., Any], tmp_path: Path) -> Iterator[Training]:
    made = Training(tmp_path, tiny_run(training={"length": {"steps": STEPS}}))
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_ends_with_a_checkpoint_from_which_the_same_command_goes_on(
    training: Training, num_workers: int
) -> None:
    first = training.start(f"machine.num_workers={num_workers}")
    wait_until(lambda: training.last_step() >= 3 or first.poll() is not None, seconds=WAIT)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=WAIT)
    assert first.returncode == 143, err
    assert "vlp: ended by SIGTERM" in err
    assert "Traceback" not in out + err
    (step,) = training.checkpoints()
    assert training.last_step() == step < STEPS
    assert training.statuses() == ["KILLED"]

    second = training.start("machine.num_workers=0")
    out, err = second.communicate(timeout=WAIT)
    assert second.returncode == 0, err
    assert f"going on from the checkpoint after step {step:,}," in out
    assert training.checkpoints()[-1] == STEPS
    assert training.statuses() == ["KILLED", "FINISHED"]


def test_two_runs_in_one_folder(training: Training) -> None:
    first = training.start("machine.num_workers=0")
    wait_until(lambda: training.last_step() >= 1 or first.poll() is not None, seconds=WAIT)
    first.send_signal(signal.SIGSTOP)
    for storage in ("results", "others"):
        second = training.start("machine.num_workers=0", f"machine.storage={storage}")
        out, err = second.communicate(timeout=WAIT)
        assert second.returncode == 2, out
        line = "vlp: run: another command writes there; wait for its end or choose another folder"
        assert err.splitlines() == [line]
    assert training.statuses() == []
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=WAIT)
    assert first.returncode == 0
    assert training.statuses() == ["FINISHED"]
    assert not (training.folder / "others").exists()


def ray_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if "RayTrainWorker" in "".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.timeout(4 * WAIT)
def test_workers_that_hang_before_they_train_are_started_anew(training: Training) -> None:
    process = training.start("machine.num_workers=2", "machine.recovery.hang_seconds=20")
    wait_until(lambda: len(ray_workers(process)) == 2 or process.poll() is not None, seconds=WAIT)
    ray_workers(process)[0].send_signal(signal.SIGSTOP)
    out, err = process.communicate(timeout=2 * WAIT)
    assert process.returncode == 0, err
    assert "did not begin within 20 s (machine.recovery.hang_seconds), and are started anew" in out
    assert training.checkpoints() == [STEPS]


@pytest.mark.slow
@pytest.mark.timeout(4 * WAIT)
def test_a_worker_that_hangs_is_named_and_treated_as_dead(training: Training) -> None:
    first = training.start("machine.num_workers=2", "machine.recovery.hang_seconds=3")
    wait_until(lambda: training.last_step() >= 1 or first.poll() is not None, seconds=WAIT)
    ray_workers(first)[0].send_signal(signal.SIGSTOP)
    out, err = first.communicate(timeout=2 * WAIT)
    assert first.returncode == 0, err
    assert "failed: it gave no sign of life for 3 s (machine.recovery.hang_seconds)" in out
    assert training.checkpoints()[-1] == STEPS
