"""A run on mixed, blockwise and partly broken data: its weights are those of any machine."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.config.machine import MachineConfig, read_settings
from pipelines.config.settings import absolute_paths
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain, run_identity
from vlp.run import RunConfig
from vlp.shards.storage.cache import ShardCache


@pytest.fixture
def run(tiny_run: Callable[..., RunConfig], shards: Path, tmp_path: Path) -> RunConfig:
    broken = Path(shutil.copytree(shards, tmp_path / "broken"))
    place = pq.read_table(broken / "00000.parquet")["image_offset"][0].as_py()
    with (broken / "00000.tar").open("r+b") as tar:
        tar.seek(place)
        tar.write(b"no image" * 10)
    checksum = hashlib.sha256((broken / "00000.tar").read_bytes()).hexdigest()
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["shards"][0]["tar_sha256"] = checksum  # it was broken from the start
    (broken / "manifest.json").write_text(json.dumps(manifest))
    data = {
        "shards": str(shards),
        "mix": [{"shards": str(broken), "share": 0.5}],
        "shuffle": "block",
        "shuffle_window": 2,
        "horizontal_flip_prob": 0.5,
    }
    return tiny_run(data=data)


def test_processes_that_load_and_a_cache_change_no_result(run: RunConfig, tmp_path: Path) -> None:
    digests = []
    for name, settings in {
        "alone": {},
        "cached": {"loader_workers": 1, "cache": ShardCache(folder=tmp_path / "cache")},
    }.items():
        journal = Journal(tmp_path / f"journal-{name}")
        journal.begin(name=run.name, tags={})
        machine = MachineConfig(num_workers=0, log_every_steps=1, **settings)
        digests.append(pretrain(run, tmp_path / name, machine=machine, journal=journal).digest)
    assert digests[0] == digests[1]
    assert list((tmp_path / "cache").glob("*.tar"))


def test_the_place_of_mixed_shards_is_no_part_of_a_runs_identity(run: RunConfig, tmp_path: Path) -> None:
    identity = run_identity(run)
    (tmp_path / "broken").rename(tmp_path / "moved")
    (tmp_path / "broken").symlink_to(tmp_path / "moved")
    assert run_identity(absolute_paths(run, Path("/"))) == identity


def test_the_cache_is_a_setting_of_the_machine(tmp_path: Path) -> None:
    arguments = [f"machine.cache.folder={tmp_path}", "machine.cache.gigabytes=5"]
    _, machine = read_settings(arguments)
    assert machine.cache == ShardCache(folder=tmp_path, gigabytes=5)
