"""Whatever stops a download, what is in its folder is whole, and going on gives the same bytes."""

import hashlib
import json
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.corpus.failures import FailureRates
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.download import download, plan
from pipelines.ingest.lock import download_lock
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.worker import IngestShard
from pipelines.tracking.journal import Journal
from tests.servers.ports import free_port
from vlp.shards.contents import ShardsManifest
from vlp.shards.storage.address import open_folder

PORT = free_port()


@pytest.fixture(scope="module")
def config(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DownloadConfig]:
    """24 URLs of a server that is up, in three shards."""
    file = tmp_path_factory.mktemp("urls") / "urls.jsonl"
    names = sorted(path.name for path in (tiny_world / "train").glob("*.jpg"))
    rows = [{"url": f"http://127.0.0.1:{PORT}/{name}", "caption": name} for name in names]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ImageServer(tiny_world / "train", port=PORT, failures=FailureRates(http_404=0.2)):
        yield DownloadConfig(
            url_list=file, number_sample_per_shard=10, thread_count=4, allowed_networks=("127.0.0.0/8",)
        )


Run = Callable[[DownloadConfig, Path], ShardsManifest]


def run_by(data_workers: int, config: DownloadConfig, output: Path) -> ShardsManifest:
    journal = Journal(output.with_name(f"journal-{output.name}"))
    journal.begin(name="download", tags={})
    return download(config, output, machine=MachineConfig(data_workers=data_workers), journal=journal)


@pytest.fixture
def run(data_workers: int) -> Run:
    return partial(run_by, data_workers)


@pytest.fixture(scope="module")
def calm(config: DownloadConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a download that nothing stopped."""
    folder = tmp_path_factory.mktemp("calm") / "shards"
    run_by(0, config, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """What the operating system does to a writer whose quota is used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1_000, 12_000], ids=["in the spool", "in the tar"])
def test_a_disk_without_room_leaves_nothing_and_is_no_obstacle_later(
    room: int, config: DownloadConfig, tmp_path: Path
) -> None:
    calm, full = tmp_path / "calm", tmp_path / "full"
    for output in (calm, full):
        plan(config, output)
    ingest = {output: IngestShard(config, open_folder(output), 1, lambda *_: True) for output in (calm, full)}
    done = ingest[calm]({"name": "00000"})
    assert json.loads(done["stats"])["count"] == 10
    with largest_file(room):
        refused = ingest[full]({"name": "00000"})
    assert refused["stats"] == ""
    assert "File too large" in refused["failure"]
    assert digests(full) == {}
    assert ingest[full]({"name": "00000"}) == done
    assert digests(full) == digests(calm)


def test_a_disk_that_refuses_a_shard_ends_in_one_line_and_the_same_command_goes_on(
    run: Run, config: DownloadConfig, calm: Path, tmp_path: Path
) -> None:
    output = tmp_path / "shards"
    (output / "00001.tar").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Is a directory.*00001\.tar.* the same command goes on") as raised:
        run(config, output)
    assert "\n" not in str(raised.value)
    assert not list(output.glob("*.tmp"))
    assert not (output / "manifest.json").exists()
    (output / "00001.tar").rmdir()
    run(config, output)
    assert digests(output) == digests(calm)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_fetched(
    config: DownloadConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "shards", Path("/proc/shards")):
        with pytest.raises(UserError, match=f"{output}: cannot write there"):
            plan(config, output)


def test_of_two_downloads_into_one_folder_the_second_is_refused(
    config: DownloadConfig, tmp_path: Path
) -> None:
    """The lock is held by the driver, whatever its workers are."""
    output, run = tmp_path / "shards", partial(run_by, 0)
    with download_lock(open_folder(output)):
        for attempt in (plan, run):
            with pytest.raises(UserError, match="another download writes there"):
                attempt(config, output)
        assert digests(output) == {}
    run(config, output)
    before = digests(output)
    with (
        download_lock(open_folder(output)),
        pytest.raises(UserError, match="another download writes there"),
    ):
        run(config, output)
    assert digests(output) == before


def test_too_few_successes_stop_the_download_with_their_reasons(
    run: Run, config: DownloadConfig, tiny_world: Path, tmp_path: Path
) -> None:
    rows = [{"url": f"http://127.0.0.1:{PORT}/missing{i}.jpg", "caption": ""} for i in range(200)]
    (tmp_path / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "url_list": tmp_path / "urls.jsonl",
        "number_sample_per_shard": 20,
        "allowed_networks": ("127.0.0.0/8",),
        "success_window": 50,
    }
    picky = DownloadConfig(**settings, min_success_rate=0.1)
    with pytest.raises(UserError, match=r"only 0\.0% of the last .* min_success_rate=0\.1; .* http_404") as e:
        run(picky, tmp_path / "shards")
    assert "\n" not in str(e.value)
    assert len(list((tmp_path / "shards").glob("*_stats.json"))) < 10
    manifest = run(DownloadConfig(**settings), tmp_path / "shards")
    assert manifest.outcomes == {"http_404": 200}


def test_a_shard_that_is_stopped_is_not_written(config: DownloadConfig, tmp_path: Path) -> None:
    plan(config, tmp_path)
    seen: list[Counter[str]] = []

    def stop(name: str, outcomes: Counter[str]) -> bool:
        seen.append(Counter(outcomes))
        return False

    assert IngestShard(config, open_folder(tmp_path), 1, stop)({"name": "00000"}) == {
        "stats": "",
        "failure": "",
    }
    assert seen
    assert digests(tmp_path) == {}
