"""Shards in an object store are those of a folder: made, counted, verified and trained on alike."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from pipelines.commands.main import main
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.corpus.failures import FailureRates
from pipelines.corpus.serve import ImageServer
from pipelines.ingest import lock
from pipelines.ingest.download import download
from pipelines.ingest.settings import DownloadConfig
from pipelines.shards.docfreq import DocfreqConfig, docfreq
from pipelines.shards.verify import verify
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import pretrain
from tests.servers.cable import Cable
from tests.servers.object_store import ObjectStore, serving
from tests.servers.ports import free_port
from tests.waiting import wait_until
from vlp.data.config import DataConfig
from vlp.data.loader import TrainingPairs
from vlp.data.order import Draw
from vlp.run import RunConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.cache import ShardCache
from vlp.shards.storage.folder import Folder

PORT = free_port()
RATES = FailureRates(http_404=0.2, http_500=0.2)


@pytest.fixture(scope="module")
def url_list(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images, and three of them again under other names."""
    folder = tmp_path_factory.mktemp("images")
    files = sorted((tiny_world / "train").glob("*.jpg"))
    for file in files:
        shutil.copy(file, folder)
    for i, file in enumerate(files[:3]):
        shutil.copy(file, folder / f"z{i}.jpg")
    names = sorted(file.name for file in folder.iterdir())
    rows = [{"url": f"http://127.0.0.1:{PORT}/{name}", "caption": f"a picture {name}"} for name in names]
    (folder / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "urls.jsonl"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of the lock, shorter: an owner writes ten times before it is taken for dead."""
    for name, seconds in {"BEAT_SECONDS": 0.2, "STALE_SECONDS": 2.0, "SETTLE_SECONDS": 0.1}.items():
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def run(url_list: Path, tmp_path: Path) -> Callable[..., ShardsManifest]:
    """Download from a server that fails at the given rates; returns the manifest."""

    def run(
        output: Path | Folder,
        *,
        rates: FailureRates | None = RATES,
        retry: list[str] | None = None,
        workers: int = 0,
        **settings: Any,
    ) -> ShardsManifest:
        config = DownloadConfig(
            url_list=url_list,
            number_sample_per_shard=10,
            retries=0,
            allowed_networks=("127.0.0.0/8",),
            **settings,
        )
        journal = Journal(tmp_path / "journal")
        journal.begin(name="download", tags={})
        with ImageServer(url_list.parent, port=PORT, failures=rates):
            machine = MachineConfig(data_workers=workers)
            return download(config, output, machine=machine, journal=journal, retry=retry)

    return run


def digests(folder: Path | Folder) -> dict[str, str]:
    """Everything that a download makes, but its plan."""
    folder = open_folder(folder)
    return {name: hashlib.sha256(folder.read(name)).hexdigest() for name in folder.names()}


def stored(shards: Path, object_store: ObjectStore, bucket: str | None = None) -> Folder:
    """The same shards in the store."""
    folder = object_store.bucket(bucket)
    for file in shards.iterdir():
        folder.write(file.name, file.read_bytes())
    return folder


def vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_download_makes_the_bytes_that_it_makes_in_a_folder_whatever_interrupts_it(
    run: Callable[..., ShardsManifest], object_store: ObjectStore, tmp_path: Path
) -> None:
    remote = object_store.bucket()
    assert run(tmp_path / "here") == run(remote)
    whole = digests(tmp_path / "here")
    assert digests(remote) == whole
    assert (remote / "plan").names() == {"plan.json", "00000.arrow", "00001.arrow", "00002.arrow"}
    # A driver that was killed: a shard is not committed, its tar is of another writer.
    for name in ("manifest.json", "00001_stats.json"):
        remote.delete(name)
    remote.write("00001.tar", b"half")
    run(remote)
    assert digests(remote) == whole
    assert list(verify(remote)) == list(verify(tmp_path / "here")) == []
    with pytest.raises(UserError, match="other settings; choose another output folder"):
        run(remote, image_size=16)


@pytest.mark.slow
def test_failures_are_tried_again_and_duplicates_dropped_as_in_a_folder(
    ray_cluster: None, run: Callable[..., ShardsManifest], object_store: ObjectStore, tmp_path: Path
) -> None:
    folders = (tmp_path / "here", object_store.bucket())
    for settings in (
        {},
        {"rates": None, "retry": ["http_5xx"]},
        {"rates": None, "retry": []},
    ):
        here, there = (run(folder, drop_duplicates="exact", workers=2, **settings) for folder in folders)
        assert here == there
        assert digests(folders[0]) == digests(folders[1])
    assert there.outcomes == {"success": 24, "duplicate": 3}
    assert len(there.shards) > 3


def test_two_downloads_do_not_meet_in_one_folder_and_a_dead_one_keeps_nobody_out(
    run: Callable[..., ShardsManifest], object_store: ObjectStore
) -> None:
    remote = object_store.bucket()
    with lock.download_lock(remote), pytest.raises(UserError, match="another download writes there"):
        run(remote)
    assert remote.names() == set()
    (remote / "plan").write_json("lock", {"owner": "killed", "beat": 3})
    assert run(remote).num_urls == 27
    assert "lock" not in (remote / "plan").names()


def test_who_lost_the_lock_is_told(object_store: ObjectStore) -> None:
    remote = object_store.bucket()
    with lock.download_lock(remote) as check:
        check()

        def take_over() -> bool:  # again and again: the owner may be about to write
            (remote / "plan").write_json("lock", {"owner": "another", "beat": 0})
            check()
            return False

        with pytest.raises(UserError, match="another download took the folder over"):
            wait_until(take_over)
    assert (remote / "plan").read_json("lock")["owner"] == "another"


def test_of_those_who_come_at_the_same_time_one_gets_the_lock(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 1.0)  # longer than a busy machine lets a thread wait
    remote, is_over = object_store.bucket(), Event()
    entered: list[int] = []
    refused: list[int] = []

    def enter(number: int) -> None:
        try:
            with lock.download_lock(remote):
                entered.append(number)
                is_over.wait()
        except UserError:
            refused.append(number)

    threads = [Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(entered) + len(refused) == 4)
    is_over.set()
    for thread in threads:
        thread.join()
    assert len(entered) == 1


@pytest.mark.slow
def test_document_frequencies_are_those_of_the_folder(
    ray_cluster: None, shards: Path, object_store: ObjectStore, tmp_path: Path
) -> None:
    made = []
    for name, folder in {"here": open_folder(shards), "there": stored(shards, object_store)}.items():
        journal = Journal(tmp_path / f"journal-{name}")
        journal.begin(name="docfreq", tags={})
        docfreq(DocfreqConfig(shards=folder), tmp_path / name, machine=MachineConfig(), journal=journal)
        made.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir() if file.is_file()})
    assert len(made[0]) == 6
    assert made[0] == made[1]


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_a_run_has_the_weights_that_it_has_on_a_folder_and_the_cache_its_bound(
    tiny_run: Callable[..., RunConfig],
    shards: Path,
    object_store: ObjectStore,
    tmp_path: Path,
    loader_workers: int,
) -> None:
    """A cache for two of the three shards, which are all needed in every epoch."""
    largest = max(file.stat().st_size for file in shards.glob("*.tar"))
    cache = ShardCache(folder=tmp_path / "cache", gigabytes=2 * largest / 1e9)
    digests = []
    for name, folder, machine in (
        ("here", shards, MachineConfig(num_workers=0)),
        (
            "there",
            stored(shards, object_store),
            MachineConfig(num_workers=0, loader_workers=loader_workers, cache=cache),
        ),
    ):
        data = {"shards": str(folder), "shuffle": "block", "shuffle_window": 1}
        config = tiny_run(data=data, training={"length": {"steps": 7}, "batch_size": 8})
        journal = Journal(tmp_path / f"journal-{name}")
        journal.begin(name="run", tags={})
        digests.append(pretrain(config, tmp_path / name, machine=machine, journal=journal).digest)
    assert digests[0] == digests[1]
    kept = [file.stat().st_size for file in (tmp_path / "cache").glob("*.tar")]
    assert len(kept) in (1, 2)
    assert sum(kept) <= 2 * largest


def test_runs_and_trials_share_one_copy_of_a_shard(
    tiny_run: Callable[..., RunConfig], shards: Path, object_store: ObjectStore, tmp_path: Path
) -> None:
    """The second run needs nothing of the store but what the index says."""
    remote = stored(shards, object_store)
    cache = ShardCache(folder=tmp_path / "cache", gigabytes=1)
    first: dict[str, int] = {}
    for seed in (0, 1):
        config = tiny_run(
            data={"shards": str(remote)}, seed=seed, training={"length": {"steps": 6}, "batch_size": 8}
        )
        machine = MachineConfig(num_workers=0, cache=cache)
        journal = Journal(tmp_path / f"journal-{seed}")
        journal.begin(name="run", tags={})
        pretrain(config, tmp_path / str(seed), machine=machine, journal=journal)
        copies = {file.name: file.stat().st_ino for file in (tmp_path / "cache").glob("*.tar")}
        if seed == 0:
            first = copies
            for name in ("00001.tar", "00002.tar"):  # the first images are drawn into a picture
                remote.delete(name)
    assert len(first) == 3
    assert copies == first


def test_verify_and_describe_read_the_store(shards: Path, object_store: ObjectStore) -> None:
    remote = stored(shards, object_store)
    result = vlp("data", "verify", remote)
    assert (result.exit_code, result.stdout) == (0, f"{remote}: whole\n")
    assert vlp("data", "describe", remote).stdout == (remote / "card").read("card.md").decode()
    assert "| images | 24 |" in (remote / "card").read("card.md").decode()
    content = bytearray(remote.read("00001.tar"))
    content[700] ^= 1
    remote.write("00001.tar", bytes(content))
    remote.delete("00002.tar")
    result = vlp("data", "verify", remote)
    assert result.exit_code == 1
    assert "00001.tar: its checksum is not that of 00001_stats.json" in result.stdout
    assert "00002.tar: missing" in result.stdout


MISTAKES = {
    "no bucket": ("docfreq shards=s3://nowhere/x -o out", "vlp: s3://nowhere/x: there is no such bucket"),
    "no shards": ("docfreq shards={remote} -o out", "is not a folder of shards: it has no manifest.json"),
    "a scheme": ("docfreq shards=ftp://host/x -o out", "command line: shards: nothing reads ftp:// folders"),
    "a password": ("data verify s3://key:secret@bucket/x", "vlp: the address holds a password"),
    "no store": (
        "data verify s3://bucket/x?endpoint_override=http://127.0.0.1:9",
        "the store does not answer; check the network",
    ),
    "an output": ("docfreq shards={remote} -o s3://bucket/x", "choose a local folder"),
    "a download": ("download url_list={urls} -o s3://nowhere/x", "there is no such bucket; create it"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_before_any_work(
    kind: str, object_store: ObjectStore, url_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", object_store.address)
    command, line = MISTAKES[kind]
    command = command.format(remote=object_store.bucket(), urls=url_list)
    result = vlp(*command.split())
    assert result.exit_code == 2, result.output
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_wrong_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as store:
        result = vlp("data", "verify", f"s3://bucket/x?endpoint_override={store.address}")
    assert result.exit_code == 2
    assert "the store refuses the credentials; set AWS_ACCESS_KEY_ID" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_training_on_a_store_asks_for_a_cache_with_room(
    tiny_run: Callable[..., RunConfig], shards: Path, object_store: ObjectStore, tmp_path: Path
) -> None:
    remote = str(stored(shards, object_store))
    full, block = (
        tiny_run(data={"shards": remote, "shuffle": shuffle, "shuffle_window": 1})
        for shuffle in ("full", "block")
    )
    largest = max(file.stat().st_size for file in shards.glob("*.tar")) / 1e9
    small, fitting = (
        MachineConfig(cache=ShardCache(folder=tmp_path, gigabytes=room * largest)) for room in (1.5, 2)
    )
    with pytest.raises(UserError, match=r"is remote; set machine\.cache\.folder"):
        resolve(full, MachineConfig())
    with pytest.raises(UserError, match=r"or set data\.shuffle=block"):
        resolve(full, fitting)
    with pytest.raises(UserError, match=r"or lower data\.shuffle_window"):
        resolve(block, small)
    assert len(resolve(block, fitting).shards) == 24


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_store_that_goes_and_comes_costs_no_sample(
    is_cached: bool,
    shards: Path,
    object_store: ObjectStore,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """It is waited for: another sample in the place of one that is not broken would change the result."""
    cache = ShardCache(folder=tmp_path) if is_cached else None
    stored(shards, object_store, "patience")
    with Cable(int(object_store.address.rpartition(":")[2])) as cable, ThreadPoolExecutor(1) as pool:
        remote = open_folder(f"s3://patience/shards?endpoint_override={cable.address}")
        expected, found = (
            TrainingPairs(of, DataConfig(shards=remote), image_size=16, seed=0)
            for of in (ShardSet(shards), ShardSet(remote, cache=cache))
        )
        first, last = Draw(0, 0), Draw(len(expected) - 1, 0)
        assert torch.equal(found[first].image, expected[first].image)
        cable.unplug()
        waiting = pool.submit(found.__getitem__, last)
        wait_until(lambda: any("waiting for s3://patience/" in str(one.message) for one in recwarn))
        cable.plug()
        pair = waiting.result(120)
    assert pair.caption == expected[last].caption
    assert torch.equal(pair.image, expected[last].image)
    assert not pair.unreadable
