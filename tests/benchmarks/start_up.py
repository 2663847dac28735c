"""Seconds from `vlp pretrain` to the end of its first step, in this process and with two workers of Ray.

python tests/benchmarks/start_up.py [--runs 5]

A small model on the sample corpus, its shards written before; the first turn fills the caches of the disk
and is not counted. Where the time goes is read from the run's journal, which notes when each thing was done.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness import Result, command_line, report
from runs.laptop_run import NUM_IMAGES, arguments, run_journal, step_times, write_shards

KINDS = {"num_workers 0, in this process": 0, "num_workers 2, with Ray": 2}


class StartUp(NamedTuple):
    """Seconds from the command to moments of its start."""

    checked: float
    """Everything that it needs is imported, and its settings and data are found to be right."""
    recorded: float
    """What it is made of is written down; next are Ray and its workers, where there are any."""
    stepped: float
    """The first step has ended."""


def start(shards: Path, folder: Path, num_workers: int) -> StartUp:
    """Run one step in a folder of its own."""
    settings = {"machine.num_workers": num_workers, "training.length.steps": 1, "lr_schedule.warmup_steps": 0}
    command = [sys.executable, "-m", "pipelines", "pretrain"]
    begin = time.time()
    done = subprocess.run(
        [*command, *arguments(shards, folder / "run", **settings)],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    journal = run_journal(folder)
    first, inputs = journal.first("begin"), journal.first("dataset")
    assert first is not None
    assert inputs is not None
    return StartUp(first.time / 1000 - begin, inputs.time / 1000 - begin, step_times(journal)[1] - begin)


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="of the data set")
    options = parser.parse_args()
    found: dict[str, list[StartUp]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        shards = write_shards(Path(name), options.images)
        for turn in range(options.runs + 1):
            for kind, num_workers in KINDS.items():
                found[kind].append(start(shards, Path(name) / f"{turn}-{num_workers}", num_workers))
                print(kind, found[kind][-1], flush=True)
    results = []
    for kind, starts in found.items():
        for what, seconds in zip(
            ("checked", "inputs recorded", "first step done"), zip(*starts[1:], strict=True), strict=True
        ):
            results.append(Result(what=f"{kind}: {what}", unit="s", ours=seconds))
    report("start_up", results, options.results)


if __name__ == "__main__":
    main()
