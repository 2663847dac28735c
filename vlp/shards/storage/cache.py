"""A bounded local copy of shards that lie in a slow or remote folder, for all processes of a machine."""

import hashlib
import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Annotated

import pyarrow as pa

from vlp.core.config import Above, StrictConfig
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.lock import locked, locked_if_free
from vlp.shards.storage.whole import delete_unfinished, sync, writing

CHUNK_BYTES = 1 << 23  # of an object store, a request each


class NoRoomError(Exception):
    """A copy does not fit beside those that are being made."""


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
                delete_unfinished(self.folder, copy.name)  # of a killed process: the lock was free
            try:
                return self._copy(source, name, copy)
            except NoRoomError:
                return source.open(name)

    def _copy(self, source: Folder, name: str, copy: Path) -> pa.NativeFile:
        digest = hashlib.sha256()
        with ExitStack() as until_open:
            with source.open(name) as reader, writing(copy) as writer:
                self._take_room(writer, reader.size())
                while chunk := reader.read(CHUNK_BYTES):
                    digest.update(chunk)
                    writer.write(chunk)
                if digest.hexdigest() != copy.stem:
                    raise ValueError("the tar is not the one that was written: its checksum differs")
                sync(writer)  # before others have to wait
                until_open.enter_context(self._locked("room"))
            return pa.OSFile(str(copy))

    def _take_room(self, writer: BufferedRandom, num_bytes: int) -> None:
        """Delete the oldest copies until one more fits, and give the file that is written its size."""
        with self._locked("room"):
            for file in self._unfinished():
                self._delete_abandoned(file)
            copies = {file: file.stat() for file in self.folder.glob("*.tar")}
            free = self.gigabytes * 1e9 - num_bytes - sum(map(_size, self._unfinished()))
            if free < 0:
                raise NoRoomError
            used = sum(stat.st_size for stat in copies.values())
            for file in sorted(copies, key=lambda file: copies[file].st_mtime):
                if used <= free:
                    break
                file.unlink()
                used -= copies[file].st_size
            writer.truncate(num_bytes)

    def _unfinished(self) -> list[Path]:
        return list(self.folder.glob("*.tmp"))

    def _delete_abandoned(self, file: Path) -> None:
        """Delete an unfinished copy if the process that made it is dead: its lock is free."""
        with locked_if_free(self._lock(file.name.partition(".")[0])) as is_free:
            if is_free:
                file.unlink(missing_ok=True)

    def _locked(self, name: str) -> AbstractContextManager[None]:
        return locked(self._lock(name))

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"


def _size(file: Path) -> int:
    """Bytes of a file that its owner may delete at any time."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
