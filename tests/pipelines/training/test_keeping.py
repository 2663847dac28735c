"""What workers send to the driver's node is written there, in order; what fails is said at their end."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from pipelines.checkpoints.store import checkpoint_name, list_saved, write_manifest
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import PICTURES, Journal
from pipelines.tracking.sent import Keeper, SentJournal
from pipelines.training.job import TrainJob
from pipelines.training.keeping import FileThere, drop_unrecorded
from pipelines.training.resolved import resolve
from tests.waiting import wait_until
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder

pytestmark = pytest.mark.usefixtures("ray_cluster")
COUNT = 50


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """The driver's, begun."""
    journal = Journal(tmp_path / "journal")
    journal.begin(name="run", tags={})
    return journal


@pytest.fixture
def keeper(journal: Journal) -> Any:
    keeper: Any = ray.remote(num_cpus=0)(Keeper).remote(journal)
    ray.get(keeper.check.remote())  # its process has started
    return keeper


def test_records_and_their_files_come_in_order(journal: Journal, keeper: Any, tmp_path: Path) -> None:
    sent, picture = SentJournal(journal.folder, keeper), journal.folder / PICTURES / "masks.png"
    picture.parent.mkdir()
    for step in range(COUNT):
        sent.metrics({"train/loss": step / 7}, step=step)
    picture.write_bytes(b"a picture")
    sent.image("view/masks", picture, step=COUNT)
    there = LocalFolder(tmp_path / "store")
    sent.copy_to(there)

    records = list(journal.read())
    assert [one.fields["step"] for one in records if one.kind == "metrics"] == list(range(COUNT))
    assert [one.fields["metrics"]["train/loss"] for one in records[1:-1]] == [n / 7 for n in range(COUNT)]
    assert journal.locate(records[-1].fields["path"]).read_bytes() == b"a picture"
    assert there.read("journal.jsonl") == (journal.folder / "journal.jsonl").read_bytes()
    assert (there / PICTURES).read("masks.png") == b"a picture"


def test_a_node_forgets_checkpoints_whose_steps_were_recorded_on_one_that_is_gone(
    journal: Journal, keeper: Any, tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    machine = MachineConfig(log_every_steps=10)
    job = replace(TrainJob(resolve(tiny_run(), machine), machine, tmp_path / "run", journal), keeper=keeper)
    for step in (20, 25, 30):
        folder = job.checkpoints.folder / checkpoint_name(step)
        folder.mkdir(parents=True)
        write_manifest(folder, step=step, metrics={})
    for step in (10, 20):
        journal.metrics({"train/loss": 1.0}, step=step)
    drop_unrecorded(job)
    assert [one.step for one in list_saved(job.checkpoints.folder)] == [20, 25]


def test_what_could_not_be_written_is_raised_at_the_end(journal: Journal, keeper: Any) -> None:
    shutil.rmtree(journal.folder)
    SentJournal(journal.folder, keeper).metrics({"train/loss": 1.0}, step=1)
    with pytest.raises(RayTaskError, match="No such file or directory"):
        ray.get(keeper.check.remote())


def test_a_file_of_the_driver_is_seen_soon(keeper: Any, tmp_path: Path) -> None:
    file = FileThere(tmp_path / "stop", keeper, [])
    assert not file.exists()
    (tmp_path / "stop").touch()
    wait_until(file.exists)
