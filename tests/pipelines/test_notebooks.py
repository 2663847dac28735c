"""The notebooks of the manual run from the first cell to the last, on small inputs of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

NOTEBOOKS = REPOSITORY / "docs" / "notebooks"


def code_of(notebook: Path) -> str:
    """Its cells of code, one after another."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def run(name: str, folder: Path) -> None:
    """Execute a notebook's code as a program."""
    file = folder / f"{name}.py"
    file.write_text(code_of(NOTEBOOKS / f"{name}.ipynb"))
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, file.name], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebooks_run_one_after_another(shards: Path, tiny_world: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    (tmp_path / "photographs").mkdir()
    for image in sorted((tiny_world / "train").glob("*.jpg"))[:4]:
        shutil.copy(image, tmp_path / "photographs")
    for name in ("masks", "train_and_load", "results"):
        run(name, tmp_path)
    assert (tmp_path / "for_open_clip" / "open_clip_config.json").is_file()


def test_notebooks_are_kept_without_outputs_and_are_all_run() -> None:
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert [notebook.stem for notebook in notebooks] == ["masks", "results", "train_and_load"]
    for notebook in notebooks:
        cells = json.loads(notebook.read_text())["cells"]
        assert cells[0]["cell_type"] == "markdown"
        assert not any(cell.get("outputs") for cell in cells)
