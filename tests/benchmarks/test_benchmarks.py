"""Every benchmark comes to its table; at a size that takes seconds, which says nothing of its figures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

SMALL = {
    "checkpointing": "--size demo --runs 1",
    "contrastive_loss": "--batch-size 64 --largest 128 --width 8",
    "document_frequencies": "--captions 1000 --runs 1",
    "download": "--images 40 --rounds 1",
    "download_restart": "--urls 2000 --shard-size 50",
    "loader": "--count 200 --rounds 1",
    "memory": "--urls 1000 --images 20 --samples 2000",
    "ray_train": "--images 128 --steps 4 --warm-up 2 --rounds 1 --workers 1",
    "reconstruction_step": "--device cpu --batch-size 1 --runs 1",
    "start_up": "--images 128 --runs 1",
    "step": "--device cpu --size small large_batch --batch-size 4 --runs 1",
    "superclass_loss": "--device cpu --batch-size 8 --runs 1",
    "tokenization": "--captions 500 --runs 1",
}


TAKE_A_MINUTE = {
    "checkpointing",
    "contrastive_loss",
    "download",
    "download_restart",
    "loader",
    "memory",
    "ray_train",
    "reconstruction_step",
    "start_up",
    "step",
    "superclass_loss",
}
"""They start Ray or many processes again and again, or compile models."""
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (name in TAKE_A_MINUTE)) for name in SMALL]


@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_ends_with_figures_and_leaves_the_results_of_the_repository_alone(
    name: str, tmp_path: Path
) -> None:
    kept = contents(REPOSITORY / "tests/benchmarks/results")
    command = [sys.executable, REPOSITORY / f"tests/benchmarks/{name}.py", "--results", tmp_path]
    done = subprocess.run([*command, *SMALL[name].split()], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if f"{name}: skipped" in done.stdout:
        pytest.skip(done.stdout.strip())
    tables = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert tables
    assert all(result["ours"] >= 0 for table in tables for result in table["results"])
    assert len(list(tmp_path.glob("*.md"))) == len(tables)
    assert contents(REPOSITORY / "tests/benchmarks/results") == kept


def test_make_bench_runs_what_is_tested_here() -> None:
    dry_run = ["make", "--dry-run", "bench"]
    shown = subprocess.run(dry_run, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert sorted(SMALL) == sorted(re.findall(r"tests/benchmarks/(\w+)\.py", shown))


def contents(folder: Path) -> dict[str, bytes]:
    """Of the files, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
