"""Data that cannot be read is passed over, or ends a run in one line, without another attempt."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, to_dict
from pipelines.shards.codes import FitCodesConfig, fit
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def broken(shards: Path, tmp_path: Path) -> Path:
    """Shards of which the first images, and one in the middle, are none."""
    folder = Path(shutil.copytree(shards, tmp_path / "broken"))
    for shard, rows in (("00000", (0, 1)), ("00001", (4,))):
        places = pq.read_table(folder / f"{shard}.parquet")["image_offset"].to_pylist()
        with (folder / f"{shard}.tar").open("r+b") as tar:
            for row in rows:
                tar.seek(places[row])
                tar.write(b"no image" * 10)
    return folder


def settings_file(run: RunConfig, folder: Path) -> Path:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(to_dict(run)))
    return file


def test_what_looks_at_images_before_the_training_passes_broken_ones_over(
    tiny_run: MakeRun, broken: Path, tmp_path: Path
) -> None:
    """The preview of masks, the search of a threshold, and the fit of a palette."""
    run = tiny_run(
        data={"shards": str(broken), "max_unreadable_share": 0.5},
        mask={"name": "cluster", "anchor_ratio": 0.1},
    )
    journal = Journal(tmp_path / "journal")
    journal.begin(name=run.name, tags={})
    manifest = pretrain(run, tmp_path / "run", machine=MachineConfig(num_workers=0), journal=journal)
    assert manifest.steps == 3
    settings = {"shards": str(broken), "image_size": 32, "target": {"name": "color_clusters", "num_codes": 4}}
    config = build(FitCodesConfig, Layers().add(settings, "test"))
    manifest = fit(config, tmp_path / "palette.npy", machine=MachineConfig(), journal=journal)
    assert manifest.num_vectors == 21 * config.vectors_per_image


@pytest.mark.parametrize("damage", ["some images", "all tars"])
def test_too_much_of_it_ends_a_run_in_this_process_in_one_line(
    damage: str, tiny_run: MakeRun, broken: Path, tmp_path: Path
) -> None:
    if damage == "all tars":
        for tar in broken.glob("*.tar"):
            tar.write_bytes(b"")
    run = tiny_run(data={"shards": str(broken), "max_unreadable_share": 0.0})
    overrides = ["machine.num_workers=0", f"machine.storage={tmp_path / 'results'}"]
    result = CliRunner().invoke(main, ["pretrain", str(settings_file(run, tmp_path)), *overrides])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("vlp: training failed: ")
    assert result.stderr.count("\n") == 1
    assert str(broken) in result.stderr


@pytest.mark.slow
def test_too_much_of_it_ends_workers_in_one_line_at_the_first_attempt(
    tiny_run: MakeRun, broken: Path, tmp_path: Path
) -> None:
    run = tiny_run(data={"shards": str(broken), "max_unreadable_share": 0.0})
    overrides = [
        "machine.num_workers=2",
        "machine.recovery.max_failures=3",
        f"machine.storage={tmp_path / 'results'}",
    ]
    command = [sys.executable, "-m", "pipelines", "pretrain", str(settings_file(run, tmp_path))]
    done = subprocess.run([*command, *overrides], capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    said = [line for line in output.splitlines() if "could not be read" in line]
    assert len(said) == 1, output
    assert said[0].startswith("vlp: training failed: ")
    assert "more than data.max_unreadable_share 0 allows" in said[0]
    assert "Traceback" not in output
