"""A bounded local copy of shards that lie on a slow folder, shared by all processes of a machine."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardCache:
    """Copies of shards, named by their checksum: runs and trials that read the same shard share its copy.

    A copy exists whole, with the right checksum, or not at all. What was not opened for the longest time
    makes room for what is needed; who has a copy open reads on from it.
    """

    folder: Path
    max_bytes: int

    def open(self, source: Path, sha256: str) -> int:
        """A file descriptor of the local copy of a shard, made now if there is none.

        A shard that is larger than the whole cache is read where it lies.

        Raises:
            ValueError: the shard does not have this checksum.
            OSError: it cannot be read.
        """
        copy = self.folder / f"{sha256}.tar"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(sha256):
            try:
                copied = os.open(copy, os.O_RDONLY)
            except FileNotFoundError:
                num_bytes = source.stat().st_size
                if num_bytes > self.max_bytes:
                    return os.open(source, os.O_RDONLY)
                return self._copy(source, copy, num_bytes)
            os.utime(copied)
            return copied

    def _copy(self, source: Path, copy: Path, num_bytes: int) -> int:
        temporary = copy.with_suffix(".tmp")
        self._make_room(temporary, num_bytes)
        digest = hashlib.sha256()
        with source.open("rb") as reader, temporary.open("r+b") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        if digest.hexdigest() != copy.stem:
            temporary.unlink()
            raise ValueError("the tar is not the one that was written: its checksum differs")
        copied = os.open(temporary, os.O_RDONLY)  # before it has its name and can be deleted
        temporary.replace(copy)
        return copied

    def _make_room(self, temporary: Path, num_bytes: int) -> None:
        """Delete the oldest copies until one more fits, and take its place."""
        temporary.unlink(missing_ok=True)  # what a killed process left
        with self._locked("room"):
            for file in self.folder.glob("*.tmp"):
                self._delete_abandoned(file)
            copies = {file: file.stat() for file in (*self.folder.glob("*.tar"), *self.folder.glob("*.tmp"))}
            used = num_bytes + sum(stat.st_size for stat in copies.values())
            for file in sorted(self.folder.glob("*.tar"), key=lambda file: copies[file].st_mtime):
                if used <= self.max_bytes:
                    break
                file.unlink()
                used -= copies[file].st_size
            with temporary.open("wb") as stream:
                stream.truncate(num_bytes)

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
