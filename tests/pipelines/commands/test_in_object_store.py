"""`vlp evaluate`, `doctor` and `submit` with all results in an object store."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.commands.main import main
from pipelines.config.settings import to_dict
from tests.paths import REPOSITORY
from tests.servers.object_store import ObjectStore
from tests.servers.ray_head import Head, ray_head
from vlp.checkpoint import MODEL
from vlp.run import RunConfig
from vlp.shards.storage.folder import Folder

ON_CPU = ("machine.num_workers=0", "machine.data_workers=0")


class Machine:
    """One with a disk of its own."""

    def __init__(self, folder: Path, storage: Folder) -> None:
        folder.mkdir()
        self.folder, self.storage = folder, storage

    def vlp(self, *arguments: str) -> Result:
        """A command on it."""
        places = (f"machine.storage={self.storage}", f"machine.work={self.folder}")
        return CliRunner().invoke(main, [*arguments, *places, *ON_CPU])


@pytest.fixture
def file(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> Path:
    """The settings of a short training."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(tiny_run())))
    return tmp_path / "tiny.yaml"


def metrics(said: str) -> dict[str, str]:
    """What `vlp evaluate` prints."""
    return dict(re.findall(r"^(dev/\S+) +(\S+)", said, re.MULTILINE))


@pytest.mark.usefixtures("ray_cluster")
def test_a_model_of_one_machine_is_measured_on_another(
    object_store: ObjectStore, tiny_world: Path, file: Path, tmp_path: Path
) -> None:
    storage = object_store.bucket()
    first, second, third = (Machine(tmp_path / name, storage) for name in ("first", "second", "third"))
    assert first.vlp("pretrain", str(file), "-o", str(first.folder / "run")).exit_code == 0

    sets = f"evaluation.retrieval.dev={tiny_world / 'retrieval.parquet'}"
    said: list[str] = []
    for machine in (first, second):
        made = (f"checkpoint={machine.folder / 'run'}", sets, "-o", str(machine.folder / "metrics"))
        result = machine.vlp("evaluate", *made)
        assert result.exit_code == 0, result.output
        assert f"published: {storage / 'metrics'}" in result.output
        said.append(result.output)
    assert len(metrics(said[0])) > 5
    assert metrics(said[0]) == metrics(said[1])
    assert {"manifest.json", "outcomes.parquet"} <= (storage / "metrics").names()

    result = third.vlp("evaluate", f"checkpoint={third.folder / 'none'}", sets)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "none is neither a checkpoint nor a finished run" in result.stderr


def test_one_checkpoint_of_a_run_is_measured_on_another_machine(
    object_store: ObjectStore, tiny_world: Path, file: Path, tmp_path: Path, ray_cluster: None
) -> None:
    storage = object_store.bucket()
    first, second = (Machine(tmp_path / name, storage) for name in ("first", "second"))
    often = "machine.checkpoints.every_steps=1"
    assert first.vlp("pretrain", str(file), "-o", str(first.folder / "run"), often).exit_code == 0
    one = second.folder / "run" / "checkpoints" / "step_0000002"
    sets = f"evaluation.retrieval.dev={tiny_world / 'retrieval.parquet'}"
    result = second.vlp("evaluate", f"checkpoint={one}", sets, "-o", str(second.folder / "metrics"))
    assert result.exit_code == 0, result.output
    assert (storage / "metrics").read_json("manifest.json")["step"] == 2


def test_doctor_tries_the_store(object_store: ObjectStore, tmp_path: Path) -> None:
    storage = object_store.bucket()
    result = Machine(tmp_path / "machine", storage).vlp("doctor")
    assert result.exit_code == 0, result.output
    assert f"good shared storage: every node can write to {storage}" in result.output.splitlines()


def test_doctor_names_a_bucket_that_is_not_there(object_store: ObjectStore, tmp_path: Path) -> None:
    address = f"s3://nowhere/vlp?endpoint_override={object_store.address}"
    words = ["doctor", f"machine.storage={address}", f"machine.work={tmp_path}", *ON_CPU]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.output.splitlines() if line.startswith("bad"))
    assert "there is no such bucket; create it" in line


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Of one node, with processes of its own."""
    with ray_head(tmp_path_factory.mktemp("ray")) as head:
        yield head


@pytest.mark.slow
def test_a_job_leaves_what_it_makes_in_the_store(
    cluster: Head, object_store: ObjectStore, file: Path, tmp_path: Path
) -> None:
    storage, work = object_store.bucket(), tmp_path / "work"
    words = [sys.executable, "-m", "pipelines", "submit", "--address", cluster.dashboard]
    words += ["pretrain", str(file), "-o", str(work / "trained")]
    words += [f"machine.storage={storage}", f"machine.work={work}", *ON_CPU]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"published: {storage / 'trained'}" in done.stdout
    manifest = (storage / "trained").read_json("manifest.json")
    assert MODEL in (storage / "trained" / manifest["checkpoint"]).names()
    records = storage / "journals" / "vlp"
    assert any("journal.jsonl" in (records / name).names() for name in records.folders())


def test_a_job_of_another_cluster_names_its_results_in_the_store(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    words = ["submit", "--address", "http://head:8265", "--dry-run", "pretrain", file.name]
    words += ["data.shards=s3://bucket/shards", "-o", "trained", "machine.storage=s3://bucket/vlp"]
    result = CliRunner().invoke(main, [*words, "machine.work=/scratch/vlp"])
    assert result.exit_code == 0, result.output
    job = result.output.splitlines()[0]
    assert "--output /scratch/vlp/trained" in job
    assert job.endswith("machine.storage=s3://bucket/vlp")
