"""A bounded local copy of shards that lie in a slow or remote folder, for all processes of a machine."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa

from vlp.core.config import Above, StrictConfig
from vlp.shards.storage.folder import Folder

CHUNK_BYTES = 1 << 23  # of an object store, a request each


@dataclass(frozen=True, kw_only=True)
class ShardCache(StrictConfig):
    """Copies of shards, named by their checksum: runs and trials that read the same shard share its copy.

    A copy exists whole, with the right checksum, or not at all. What was not opened for the longest time
    makes room for what is needed; who has a copy open reads on from it.
    """

    folder: Path
    """On a local disk; absolute, as workers run in folders of their own."""
    gigabytes: Annotated[float, Above(0)] = 100.0
    """Room for the copies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.folder.is_absolute():
            raise ValueError(f"folder must be absolute, got {self.folder}")

    def open(self, source: Folder, name: str, sha256: str) -> pa.NativeFile:
        """The local copy of a shard, made now if there is none.

        A shard for which there is no room beside those that are being copied is read where it lies.

        Raises:
            ValueError: the shard does not have this checksum.
            OSError: it cannot be read.
        """
        copy = self.folder / f"{sha256}.tar"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(sha256):
            try:
                os.utime(copy)
                return pa.OSFile(str(copy))
            except FileNotFoundError:
                if self._make_room(copy.with_suffix(".tmp"), source.size(name)):
                    return self._copy(source, name, copy)
                return source.open(name)

    def _copy(self, source: Folder, name: str, copy: Path) -> pa.NativeFile:
        temporary = copy.with_suffix(".tmp")
        digest = hashlib.sha256()
        with source.open(name) as reader, temporary.open("r+b") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        with self._locked("room"):
            if digest.hexdigest() != copy.stem:
                temporary.unlink()
                raise ValueError("the tar is not the one that was written: its checksum differs")
            temporary.replace(copy)
            return pa.OSFile(str(copy))

    def _make_room(self, temporary: Path, num_bytes: int) -> bool:
        """Delete the oldest copies until one more fits, and take its place; False if it does not fit."""
        with self._locked("room"):
            temporary.unlink(missing_ok=True)  # what a killed process left
            for file in self.folder.glob("*.tmp"):
                self._delete_abandoned(file)
            copies = {file: file.stat() for file in self.folder.glob("*.tar")}
            free = self.gigabytes * 1e9 - num_bytes - sum(f.stat().st_size for f in self.folder.glob("*.tmp"))
            if free < 0:
                return False
            used = sum(stat.st_size for stat in copies.values())
            for file in sorted(copies, key=lambda file: copies[file].st_mtime):
                if used <= free:
                    break
                file.unlink()
                used -= copies[file].st_size
            with temporary.open("wb") as stream:
                stream.truncate(num_bytes)
            return True

    def _delete_abandoned(self, file: Path) -> None:
        """Delete an unfinished copy if the process that made it is dead: its lock is free."""
        with (self.folder / f"{file.stem}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            file.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock that the system releases when its process dies."""
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
