"""Training steps per second under Ray Train, and of the same loop under torchrun.

python tests/benchmarks/ray_train.py [--rounds 5] [--steps 100] [--warm-up 20] [--workers 1 2]

Both sides train the same run with gloo and one thread per worker, in turns. Ours is `vlp pretrain` with all
that it does besides: Ray's processes, the journal and its delivery to MLflow. Those take about a tenth of a
core, which workers miss where they are as many as the cores. The first steps, in which memory is allocated,
are not counted.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from harness import Result, command_line, report
from runs.laptop_run import NUM_IMAGES, arguments, run_journal, step_times, write_shards

from pipelines.config.machine import read_settings
from pipelines.config.settings import build
from pipelines.tracking.journal import Journal
from pipelines.training.job import TrainJob
from pipelines.training.resolved import resolve
from vlp.run import RunConfig

WORKER = Path(__file__).parent / "runs" / "torchrun_worker.py"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",  # as the peer's processes
}


class Steps(NamedTuple):
    """How many a run has, and how many of them are not counted."""

    all: int
    warm_up: int

    def settings(self) -> dict[str, Any]:
        """Of the run that both sides train."""
        every = {"log_every_steps": self.warm_up // 2, "checkpoints.every_steps": self.all}
        return {"training.length.steps": self.all} | {f"machine.{key}": value for key, value in every.items()}

    def rate(self, journal: Journal) -> float:
        """Steps per second after the warm-up."""
        times = step_times(journal)
        return (self.all - self.warm_up) / (times[self.all] - times[self.warm_up])


def execute(*command: Any) -> None:
    """Run a command to its end."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def under_ray_train(shards: Path, folder: Path, num_workers: int, steps: Steps) -> float:
    """Steps per second of `vlp pretrain`."""
    changes = steps.settings() | {"machine.num_workers": num_workers}
    execute(
        sys.executable,
        "-m",
        "pipelines",
        "pretrain",
        *arguments(shards, folder / "run", **changes),
    )
    return steps.rate(run_journal(folder))


def under_torchrun(shards: Path, folder: Path, num_workers: int, steps: Steps) -> float:
    """Steps per second of the same loop."""
    files = arguments(shards, folder / "run", **steps.settings())[:-2]  # without the output
    layers, machine = read_settings(files)
    folder.mkdir()
    journal = Journal(folder / "journal")
    journal.begin(name="torchrun", tags={})
    job = TrainJob(resolve(build(RunConfig, layers), machine), machine, folder / "run", journal)
    (folder / "job").write_bytes(pickle.dumps(job))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    execute(*torchrun, "--nproc-per-node", num_workers, WORKER, folder / "job")
    return steps.rate(journal)


def compare(shards: Path, folder: Path, num_workers: int, options: argparse.Namespace) -> Result:
    """Train by both in turns."""
    steps = Steps(options.steps, options.warm_up)
    sides = {"vlp": under_ray_train, "torchrun": under_torchrun}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.rounds):
        for side, train in sides.items():
            run = folder / f"{side}-{num_workers}-{turn}"
            rates[side].append(train(shards, run, num_workers, steps))
            print(f"{num_workers} workers, {side:10} {rates[side][-1]:.3f} steps/s", flush=True)
    return Result(
        what=f"CLIP, width 128, depth 4, 64 px, batch 128, workers: {num_workers}",
        unit="steps/s",
        ours=rates["vlp"],
        peer=rates["torchrun"],
        peer_name="the same loop under torchrun",
    )


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20, help="steps that are not counted")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="of the data set")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = write_shards(folder, options.images)
        results = [compare(shards, folder, count, options) for count in options.workers]
        report("ray_train", results, options.results)


if __name__ == "__main__":
    main()
