"""Whatever process of a download is killed, every URL is in its shards once, and their bytes are the same.

The whole file takes one and a half minutes: Ray starts processes, and one cluster, anew.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from PIL import Image

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.ingest.download import download
from pipelines.ingest.failure import Download
from pipelines.ingest.image import ImageStore
from pipelines.ingest.isolated import IsolatedImageStore
from pipelines.ingest.settings import DownloadConfig
from pipelines.shards.verify import verify
from pipelines.tracking.journal import Journal
from tests.servers.web import QuietHandler, WebServer, serving
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS
from vlp.shards.shard_set import ShardSet

NUM_IMAGES, SHARD_SIZE = 24, 8
RAY_IN_ALL = pytest.mark.parametrize(
    "data_workers",
    [pytest.param(2, id="ray", marks=pytest.mark.slow), pytest.param(0, id="local")],
    indirect=True,
)
"""Ray is for `make test-all` alone, where it only hands on what happens beneath or beside it; that it does is
also shown by the refusing disk of test_download_faults.py."""
Hook = Callable[[int], None]
"""What happens before a request is answered, given the client's port."""


class Site(WebServer):
    """Serves images by name; `hooks` are called at the requests of some of them."""

    def __init__(self, images: dict[str, bytes]) -> None:
        super().__init__(_Handler)
        self.images = images
        self.hooks: dict[str, Hook] = {}
        self.requests = Counter[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(QuietHandler):
    server: Site
    protocol_version = "HTTP/1.1"

    def get(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        self.server.requests[name] += 1
        if hook := self.server.hooks.get(name):
            hook(self.client_address[1])
        body = self.server.images.get(name)
        self.answer(200 if body else 404, {}, body or b"")


@pytest.fixture(scope="module")
def images(tiny_world: Path) -> dict[str, bytes]:
    files = sorted((tiny_world / "train").glob("*.jpg"))[:NUM_IMAGES]
    return {f"{i:02d}.jpg": file.read_bytes() for i, file in enumerate(files)}


@pytest.fixture(scope="module")
def site(images: dict[str, bytes]) -> Iterator[Site]:
    with serving(Site(dict(images))) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_happens_at_first(site: Site) -> None:
    site.hooks.clear()
    site.requests.clear()


@pytest.fixture(scope="module")
def config(site: Site, tmp_path_factory: pytest.TempPathFactory) -> DownloadConfig:
    """All images, and two names that the site does not know, in three shards."""
    names = [f"{i:02d}.jpg" for i in range(NUM_IMAGES)]
    names[5] = names[13] = "missing.jpg"
    rows = [{"url": f"{site.url}/{name}?{i}", "caption": f"number {i}"} for i, name in enumerate(names)]
    file = tmp_path_factory.mktemp("urls") / "urls.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DownloadConfig(
        url_list=file,
        number_sample_per_shard=SHARD_SIZE,
        thread_count=2,
        retries=0,
        allowed_networks=("127.0.0.0/8",),
    )


Run = Callable[[DownloadConfig, Path], ShardsManifest]


def run_by(data_workers: int, record: Path, config: DownloadConfig, output: Path) -> ShardsManifest:
    journal = Journal(record)
    journal.begin(name="download", tags={})
    return download(config, output, machine=MachineConfig(data_workers=data_workers), journal=journal)


@pytest.fixture
def run(data_workers: int, tmp_path: Path) -> Run:
    return partial(run_by, data_workers, tmp_path / "journal")


@pytest.fixture(scope="module")
def calm(config: DownloadConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a download that was left alone."""
    folder = tmp_path_factory.mktemp("calm") / "shards"
    run_by(0, folder.with_name("journal"), config, folder)
    assert list(verify(folder)) == []
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def processes(*names: str) -> list[psutil.Process]:
    """Those that this one has started, with one of the names in their command lines."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(name in " ".join(process.cmdline()) for name in names):
                found.append(process)
    return found


def once(hook: Hook) -> Hook:
    done = threading.Lock()
    return lambda port: hook(port) if done.acquire(blocking=False) else None


def kill_client(port: int) -> None:
    """Kill the worker that a request comes from: another process may use the same port towards elsewhere."""
    for worker in processes("IngestShard", "worker_process"):
        with suppress(psutil.Error):
            if any(c.laddr and c.laddr.port == port for c in worker.net_connections("tcp")):
                worker.kill()
                return
    raise AssertionError(f"no worker has asked from port {port}")


def kill_board(port: int) -> None:
    boards = processes("ray::Board")
    assert boards
    for board in boards:
        board.kill()


@pytest.mark.parametrize("kill", [kill_client, kill_board], ids=["worker", "board"])
def test_a_process_that_is_killed_in_a_shard_changes_no_byte(
    kill: Hook,
    data_workers: int,
    run: Run,
    site: Site,
    config: DownloadConfig,
    calm: Path,
    tmp_path: Path,
) -> None:
    if kill is kill_board and not data_workers:
        pytest.skip("the board is in the driver")
    site.hooks["11.jpg"] = once(kill)
    run(config, tmp_path / "stormy")
    assert digests(tmp_path / "stormy") == digests(calm)
    if kill is kill_client:
        assert site.requests["11.jpg"] == 2  # the shard was begun again


def test_a_shard_that_always_kills_its_process_is_named_and_the_rest_is_kept(
    run: Run, site: Site, config: DownloadConfig, calm: Path, tmp_path: Path
) -> None:
    site.hooks["11.jpg"] = kill_client
    output = tmp_path / "shards"
    with pytest.raises(UserError, match=r"00001 ended its process 3 .* lower max_buffer_bytes") as raised:
        run(config, output)
    assert "\n" not in str(raised.value)
    assert not (output / "manifest.json").exists()
    site.hooks.clear()
    run(config, output)
    assert digests(output) == digests(calm)


def test_a_driver_that_is_killed_takes_its_workers_along_and_is_gone_on_from(
    site: Site, config: DownloadConfig, calm: Path, data_workers: int, tmp_path: Path
) -> None:
    """The second shard is half done, by a worker that is left alone."""
    if data_workers:
        pytest.skip("test_faults kills Ray's driver")
    settings = {
        "url_list": config.url_list,
        "number_sample_per_shard": SHARD_SIZE,
        "thread_count": 2,
        "retries": 0,
        "allowed_networks": "[127.0.0.0/8]",
        "machine.data_workers": 0,
        "machine.storage": tmp_path / "results",
    }
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "download",
        *(f"{k}={v}" for k, v in settings.items()),
    ]
    command += ["-o", str(tmp_path / "stormy")]
    left: list[psutil.Process] = []

    def kill_driver(port: int) -> None:
        left.extend(psutil.Process(driver.pid).children(recursive=True))
        driver.kill()

    site.hooks["11.jpg"] = once(kill_driver)
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert driver.wait(60) == -signal.SIGKILL
    assert left
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert not (tmp_path / "stormy" / "00001_stats.json").exists()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    assert digests(tmp_path / "stormy") == digests(calm)
    assert site.requests["11.jpg"] == 2


def memory_of(pid: int) -> int:
    """Bytes that a process has filled itself: what it maps from files differs from machine to machine."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")) * 1024


@contextmanager
def memory_limit(num_bytes: int) -> Iterator[Counter[str]]:
    """Kills what decodes images and fills more, as an out-of-memory killer does; counts what it killed."""
    killed, is_over = Counter[str](), threading.Event()

    def watch() -> None:
        looked = 0.0
        watched: list[psutil.Process] = []
        while not is_over.wait(0.001):
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                watched = processes("IngestShard", "worker_process", "ingest.isolated")
            for process in watched:
                with suppress(FileNotFoundError, ProcessLookupError, psutil.Error):
                    used = memory_of(process.pid)
                    if used > num_bytes:
                        kind = "isolated" if "ingest.isolated" in " ".join(process.cmdline()) else "worker"
                        process.kill()
                        process.wait()
                        watched = [other for other in watched if other.pid != process.pid]
                        killed[kind] += 1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield killed
    finally:
        is_over.set()
        watcher.join()


def contents(folder: Path) -> dict[str, bytes]:
    """Image of every caption."""
    shards = ShardSet(folder)
    return {shards.captions(i)[0]: shards.image_bytes(i) for i in range(len(shards))}


@RAY_IN_ALL
def test_an_image_whose_decoder_is_killed_costs_only_itself(
    run: Run, site: Site, images: dict[str, bytes], config: DownloadConfig, calm: Path, tmp_path: Path
) -> None:
    """81 megapixels of one colour: a small file, and 243 MB when it is decoded."""
    stream = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(stream, "PNG")
    site.hooks["11.jpg"] = lambda port: time.sleep(1)  # so that the process is known before it grows
    site.images["11.jpg"] = stream.getvalue()
    try:
        with memory_limit(250 * 2**20) as killed:
            manifest = run(config, tmp_path / "shards")
    finally:
        site.images["11.jpg"] = images["11.jpg"]
    assert killed == {"isolated": 2}
    assert manifest.outcomes == {"success": NUM_IMAGES - 3, "http_404": 2, "decode": 1}
    assert list(verify(tmp_path / "shards")) == []
    expected = contents(calm)
    assert expected.pop("number 11")
    assert contents(tmp_path / "shards") == expected


def test_a_decoder_of_its_own_stores_what_the_usual_one_does(images: dict[str, bytes]) -> None:
    config = DownloadConfig(url_list=Path("urls.csv"), image_size=24, drop_duplicates="near")
    downloads = [Download(SUCCESS, None, body) for body in (*images.values(), b"no image", b"")]
    downloads.append(Download("timeout", "no answer in time", None))
    own, isolated = ImageStore(config), IsolatedImageStore(config)
    try:
        assert [isolated(answer) for answer in downloads] == [own(answer) for answer in downloads]
    finally:
        isolated.close()


def test_decoders_that_all_die_are_a_fault_of_the_machine(images: dict[str, bytes]) -> None:
    store = IsolatedImageStore(DownloadConfig(url_list=Path("urls.csv")))
    answer = Download(SUCCESS, None, images["00.jpg"])
    is_over = threading.Event()

    def kill_every_decoder() -> None:
        while not is_over.wait(0.01):
            for child in processes("ingest.isolated"):
                child.kill()

    killer = threading.Thread(target=kill_every_decoder)
    killer.start()
    try:
        with pytest.raises(OSError, match="does not start"):
            store(answer)
    finally:
        is_over.set()
        killer.join()
    assert store(answer).outcome == SUCCESS
    store.close()


NODES = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
import ray
from pipelines.config.machine import MachineConfig
from pipelines.ingest.download import download
from pipelines.ingest.settings import DownloadConfig
from pipelines.tracking.journal import Journal

urls, output, signal = map(Path, sys.argv[1:])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
node = cluster.add_node(num_cpus=2)
config = DownloadConfig(url_list=urls, number_sample_per_shard=SHARD_SIZE, thread_count=2, retries=0,
    allowed_networks=("127.0.0.0/8",))
machine = MachineConfig(data_workers=2, ray_address=cluster.address)
journal = Journal(output.parent / "journal")
journal.begin(name="download", tags={})
settings = {"machine": machine, "journal": journal}
thread = threading.Thread(target=download, args=(config, output), kwargs=settings)
thread.start()
while not signal.exists():
    assert thread.is_alive()
    time.sleep(0.01)
cluster.remove_node(node, allow_graceful=False)
cluster.add_node(num_cpus=2)
thread.join()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_is_killed_in_a_shard_changes_no_byte(
    data_workers: int, site: Site, config: DownloadConfig, calm: Path, tmp_path: Path
) -> None:
    """All workers are on a node that dies; another one takes its place."""
    if not data_workers:
        pytest.skip("needs a cluster")
    site.hooks["11.jpg"] = lambda port: (tmp_path / "signal").touch()
    site.hooks["12.jpg"] = lambda port: time.sleep(2)  # the node is gone before the shard is made
    arguments = [str(config.url_list), str(tmp_path / "stormy"), str(tmp_path / "signal")]
    script = NODES.replace("SHARD_SIZE", str(SHARD_SIZE))
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert site.requests["11.jpg"] > 1
    assert digests(tmp_path / "stormy") == digests(calm)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@RAY_IN_ALL
def test_a_full_disk_ends_in_one_line_and_with_more_room_the_same_command_goes_on(
    run: Run, config: DownloadConfig, calm: Path, small_disk: Path
) -> None:
    output = small_disk / "shards"
    with pytest.raises(UserError, match=r"No space left on device.* the same command goes on") as raised:
        run(config, output)
    assert "\n" not in str(raised.value)
    assert not list(output.glob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    run(config, output)
    assert digests(output) == digests(calm)
