"""Nodes with disks of their own: nothing but the object store is common to them, and nodes die and come."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY
from tests.servers.object_store import ObjectStore
from tests.servers.processes import kill_tree
from tests.servers.ray_nodes import RayNodes
from tests.waiting import wait_until
from vlp.run import RunConfig
from vlp.shards.published import put
from vlp.shards.storage.folder import Folder

STEPS, EVERY = 200, 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder of a short path, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="rn-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def own_disk(tmp_path: Path) -> list[str]:
    """What gives a process a disk of its own in the place of the work folder."""
    (tmp_path / "work").mkdir()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs to be allowed to unshare mounts")
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path / "work")]


class Training:
    """`vlp pretrain` of two workers, as a process of its own."""

    def __init__(self, run: RunConfig, folder: Path, *settings: str) -> None:
        self.work, self.log = folder / "work", folder / "log.txt"
        (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
        words = [sys.executable, "-m", "pipelines", "pretrain", str(folder / "run.yaml"), "-o"]
        words += [str(self.work / "run"), "machine.num_workers=2", "machine.log_every_steps=1"]
        words += ["machine.matmul=pytorch", f"machine.checkpoints.every_steps={EVERY}", *settings]
        with self.log.open("w") as log:
            self.process = psutil.Popen(words, stdout=log, stderr=log, cwd=REPOSITORY)

    def steps(self) -> list[int]:
        """Those whose loss was recorded, in their order."""
        found = [file.parent for file in self.work.glob("journals/**/journal.jsonl")]
        records = (one for folder in found for one in Journal(folder).read() if one.kind == "metrics")
        return [one.fields["step"] for one in records if "train/loss" in one.fields["metrics"]]

    def until(self, step: int) -> None:
        """Wait for a step."""

        def is_there() -> bool:
            assert self.process.poll() in (None, 0), self.log.read_text()
            return max(self.steps(), default=0) >= step

        wait_until(is_there, seconds=400)

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        kill_tree(self.process)

    def finish(self) -> str:
        """Wait for a good end; the digest of the weights."""
        self.until(STEPS)
        assert self.process.wait() == 0, self.log.read_text()
        (model,) = self.work.glob(f"run/checkpoints/step_{STEPS:07d}/model.safetensors")
        return hashlib.sha256(model.read_bytes()).hexdigest()


def in_store(shards: Path, folder: Folder) -> str:
    """The address of a copy of some shards."""
    for file in shards.iterdir():
        put(file, folder)
    return str(folder)


def test_nothing_of_a_training_is_lost_with_the_nodes_that_it_was_on(
    object_store: ObjectStore,
    tiny_run: Callable[..., RunConfig],
    shards: Path,
    short: Path,
    own_disk: list[str],
    tmp_path: Path,
) -> None:
    data = {"shards": in_store(shards, object_store.bucket())}
    run = tiny_run(data=data, training={"length": {"steps": STEPS}, "batch_size": 8})
    (tmp_path / "calm").mkdir()
    alone = (f"machine.storage={tmp_path / 'calm' / 'work'}", f"machine.cache.folder={tmp_path / 'cache'}")
    with Training(run, tmp_path / "calm", *alone) as calm:
        expected = calm.finish()

    nodes = RayNodes(tmp_path, short)
    try:
        nodes.start_head()
        first, second = (nodes.add_node(within=own_disk) for _ in range(2))
        settings = [f"machine.storage={object_store.bucket()}", f"machine.work={tmp_path / 'work'}"]
        with Training(run, tmp_path, *settings, f"machine.ray_address={nodes.address}") as training:
            for node in (first, second):
                reached = max(training.steps(), default=0)
                training.until(reached + 2 * EVERY)
                kill_tree(node)
                nodes.add_node(within=own_disk)
            assert training.finish() == expected
    finally:
        nodes.stop()
    assert set(training.steps()) == set(range(1, STEPS + 1))
    drawn = {file.name for file in (tmp_path / "work" / "run" / "pictures").glob("masks_*.png")}
    assert drawn == {file.name for file in (calm.work / "run" / "pictures").glob("masks_*.png")}
