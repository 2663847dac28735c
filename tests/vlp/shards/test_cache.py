"""A cached shard is the shard, whole and verified, whoever else reads, writes or dies; room is bounded."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlp.shards.storage.address import open_folder
from vlp.shards.storage.cache import ShardCache

SIZE = 50_000


@pytest.fixture
def tars(tmp_path: Path) -> dict[Path, str]:
    """Six files and their checksums."""
    (tmp_path / "remote").mkdir()
    files = [tmp_path / "remote" / f"{i:05d}.tar" for i in range(6)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * SIZE)
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def small_cache(tmp_path: Path, num_bytes: int) -> ShardCache:
    return ShardCache(folder=tmp_path / "cache", gigabytes=num_bytes / 1e9)


def read(cache: ShardCache, tar: Path, checksum: str) -> bytes:
    with cache.open(open_folder(tar.parent), tar.name, checksum) as copy:
        return copy.read_at(2 * SIZE, 0)


def used(cache: ShardCache) -> int:
    return sum(file.stat().st_size for file in cache.folder.iterdir())


def test_a_copy_is_made_once_and_has_the_bytes_of_the_shard(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, 10 * SIZE)
    for _ in range(2):
        for tar, checksum in tars.items():
            content = read(cache, tar, checksum)
            assert hashlib.sha256(content).hexdigest() == checksum
    for tar, checksum in tars.items():
        tar.unlink()  # the copies stand alone
        assert len(read(cache, tar, checksum)) == SIZE


def test_the_least_recently_used_copies_make_room(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, 3 * SIZE)
    a, b, c, d, *_ = tars.items()
    for item in (a, b, c, a, d):
        read(cache, *item)
        assert used(cache) <= 3 * SIZE
        time.sleep(0.01)  # file times
    kept = {file.stem for file in cache.folder.glob("*.tar")}
    assert kept == {a[1], c[1], d[1]}


def test_an_open_copy_is_read_on_after_it_made_room(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, SIZE)
    (first, checksum), *others = tars.items()
    copy = cache.open(open_folder(first.parent), first.name, checksum)
    for item in others:
        read(cache, *item)
    assert copy.read_at(2 * SIZE, 0) == bytes(SIZE)
    copy.close()


def test_a_shard_larger_than_the_cache_is_read_where_it_lies(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, SIZE - 1)
    for tar, checksum in tars.items():
        assert len(read(cache, tar, checksum)) == SIZE
    assert used(cache) == 0


def test_a_shard_with_another_checksum_is_refused_and_leaves_nothing(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, 10 * SIZE)
    tar, checksum = next(iter(tars.items()))
    tar.write_bytes(bytes([9]) * SIZE)
    with pytest.raises(ValueError, match="checksum"):
        cache.open(open_folder(tar.parent), tar.name, checksum)
    assert used(cache) == 0


def test_a_relative_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="folder must be absolute"):
        ShardCache(folder=Path("cache"))


READER = """
import hashlib, sys
from pathlib import Path
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.cache import ShardCache
cache = ShardCache(folder=Path(sys.argv[1]), gigabytes=float(sys.argv[2]))
for turn in range(int(sys.argv[4])):
    for tar in sorted(Path(sys.argv[3]).glob("*.tar"))[::1 if turn % 2 else -1]:
        checksum = hashlib.sha256(tar.read_bytes()).hexdigest()
        with cache.open(open_folder(tar.parent), tar.name, checksum) as copy:
            content = copy.read_at(1 << 24, 0)
        assert hashlib.sha256(content).hexdigest() == checksum, len(content)
"""


def reader(cache: ShardCache, remote: Path, turns: int) -> subprocess.Popen:
    arguments = [str(cache.folder), str(cache.gigabytes), str(remote), str(turns)]
    return subprocess.Popen([sys.executable, "-c", READER, *arguments], stderr=subprocess.PIPE, text=True)


def test_processes_that_share_a_small_cache_read_whole_shards(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, 2 * SIZE)
    readers = [reader(cache, tmp_path / "remote", turns=30) for _ in range(3)]
    for process in readers:
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert used(cache) <= 2 * SIZE
    assert not list(cache.folder.glob("*.tmp"))


def test_a_process_that_is_killed_leaves_no_broken_copy_and_no_lock(tars, tmp_path: Path) -> None:
    cache = small_cache(tmp_path, 2 * SIZE)
    for i in range(4):
        process = reader(cache, tmp_path / "remote", turns=10_000)
        while not list(cache.folder.glob("*.tmp")) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.01 * i)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for tar, checksum in tars.items():
            assert len(read(cache, tar, checksum)) == SIZE
        assert used(cache) <= 2 * SIZE
        assert not list(cache.folder.glob("*.tmp"))
