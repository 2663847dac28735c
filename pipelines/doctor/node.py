"""What is looked at on every node: its limits, its disk, its storage, its way to other hosts."""

import hashlib
import os
import platform
import resource
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.config.errors import UserError
from pipelines.doctor.finding import Finding, examine
from vlp.core.messages import size_text
from vlp.shards.storage.whole import writing

PACKAGES = ("vlp", "torch", "ray", "mlflow", "numpy", "pyarrow", "timm", "pydantic")
MIN_FILES = 1024
MIN_SHARED_BYTES = 256 * 2**20
MIN_DISK_BYTES = 2**30
PROBE_BYTES = 32 * 2**20
REQUESTS, REQUEST_THREADS, REQUEST_SECONDS = 64, 16, 10


@dataclass(frozen=True)
class NodeExam:
    """What to look at on a node."""

    storage: Path
    """Of the machine's settings, as an absolute path."""
    probes: Path
    """Folder in it for the files that are written to try it."""
    local_folders: tuple[Path, ...]
    """Others that are written on the node."""
    loader_workers: int
    url: str | None
    """What is fetched from to try the network; None fetches nothing."""


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself."""

    versions: Mapping[str, str]
    """What is installed -> its version."""
    probe: str
    """Name of the file that the node has written to the storage; empty if it could not."""
    findings: tuple[Finding, ...]


def read_clock() -> float:
    """Seconds since 1970, by the clock of this node."""
    return time.time()


def installed_versions() -> dict[str, str]:
    """What of the packages that matter is installed here."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = _version_of_folder(name)
    return found


def _version_of_folder(name: str) -> str:
    """Of a package that is found on the path, without being installed."""
    if name != "vlp":
        return "none"
    from vlp import __version__

    return __version__


def examine_node(exam: NodeExam, node: str) -> NodeReport:
    """Look at the node that this runs on, and leave a file in the storage for the others.

    Args:
        node: a name of its own, for the file.
    """
    probe = f"{hashlib.sha256(node.encode()).hexdigest()[:16]}.bin"
    storage = examine(
        "storage",
        partial(try_storage, exam.storage, exam.probes / probe),
        remedy="name a folder in machine.storage that this node can write",
    )
    findings = [
        examine("open files", check_open_files, remedy="raise the limit by `ulimit -n 65536`"),
        examine(
            "/dev/shm", partial(check_shared_memory, exam.loader_workers), remedy="mount a tmpfs on /dev/shm"
        ),
        *(
            examine(
                f"free disk {folder}", partial(check_free_disk, folder), remedy="make the folder, or mount it"
            )
            for folder in (exam.storage, Path(tempfile.gettempdir()), *exam.local_folders)
        ),
        storage,
        _network(exam.url),
    ]
    is_written = storage.verdict == "good"
    return NodeReport(installed_versions(), probe if is_written else "", tuple(findings))


def check_open_files() -> str:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < MIN_FILES:
        raise UserError(
            f"a process may have {soft:,} files open, and needs {MIN_FILES:,} for shards and connections; "
            f"`ulimit -n 65536` before Ray starts there (the hard limit is {hard:,}), or LimitNOFILE in its "
            "service"
        )
    return f"{soft:,} per process"


def check_shared_memory(loader_workers: int) -> str:
    """How much shared memory is free; Ray's objects and the loader's batches are there."""
    free = shutil.disk_usage("/dev/shm").free
    if free < MIN_SHARED_BYTES * max(loader_workers, 1) ** 0.5:
        raise UserError(
            f"{size_text(free)} free, little for Ray's objects and {loader_workers} processes of the "
            "loader; start the container with --shm-size=8g (Kubernetes: an emptyDir with medium Memory), or "
            "lower machine.loader_workers"
        )
    return f"{size_text(free)} free"


def check_free_disk(folder: Path) -> str:
    """How much room is left where a folder is, or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < MIN_DISK_BYTES:
        raise UserError(f"{size_text(free)} free; make room there, or choose another folder")
    return f"{size_text(free)} free"


def try_storage(storage: Path, file: Path) -> str:
    """Write a file of the storage, rename it, read it again; says how fast that is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = os.urandom(PROBE_BYTES)
    start = time.perf_counter()
    with writing(file) as stream:  # under another name, and renamed when it is on the disk
        stream.write(data)
    written = time.perf_counter() - start
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # not from memory
        start = time.perf_counter()
        is_same = stream.read() == data
    read = time.perf_counter() - start
    if not is_same:
        raise UserError(
            f"{storage} gives back other bytes than were written; look after that file system, or name "
            "another folder in machine.storage"
        )
    speed = f"writes {size_text(PROBE_BYTES / written)}/s, reads {size_text(PROBE_BYTES / read)}/s"
    return f"{storage} {speed}, renames"


def unseen_probes(folder: Path, probes: tuple[str, ...]) -> list[str]:
    """Which files of other nodes this one does not see."""
    return [name for name in probes if not _is_whole(folder / name)]


def _is_whole(file: Path) -> bool:
    try:
        return file.stat().st_size == PROBE_BYTES
    except OSError:
        return False


def _network(url: str | None) -> Finding:
    if url is None:
        return Finding("skip", "network", "no address is given to fetch from; --url tries names and requests")
    return examine("network", partial(try_network, url), remedy="open the network of this node")


def try_network(url: str) -> str:
    """Find the address of a host by its name, and fetch from it for as long as it takes to see the rate."""
    host = urlsplit(url).hostname or ""
    start = time.perf_counter()
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UserError(
            f"no address is found for {host} ({error.strerror}); correct --url, or the name servers in "
            "/etc/resolv.conf of this node"
        ) from error
    found = time.perf_counter() - start
    start = time.perf_counter()
    try:
        with ThreadPool(REQUEST_THREADS) as threads:
            sizes = threads.map(_fetch, [url] * REQUESTS)
    except OSError as error:
        raise UserError(
            f"{url} does not answer: {error}; open the node's way to it, by a proxy (https_proxy) or the "
            "firewall"
        ) from error
    seconds = time.perf_counter() - start
    rate = f"{REQUESTS / seconds:.0f} requests/s, {size_text(sum(sizes) / seconds)}/s"
    return f"{host} found in {found * 1000:.0f} ms; {rate} with {REQUEST_THREADS} threads"


def _fetch(url: str) -> int:
    with urllib.request.urlopen(url, timeout=REQUEST_SECONDS) as answer:
        return len(answer.read())
