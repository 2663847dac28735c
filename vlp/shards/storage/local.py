"""A folder of this machine."""

import mmap
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from io import BufferedRandom
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.storage.folder import Folder, LocalFile
from vlp.shards.storage.whole import writing


class LocalFolder(Folder):
    """A folder of this machine, or of a file system that is mounted here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> "LocalFolder":
        return LocalFolder(self.path.parent)

    @property
    def local_path(self) -> Path:
        return self.path

    def absolute(self, start: Path | None = None) -> "LocalFolder":
        return LocalFolder((start or Path.cwd()) / self.path)

    def names(self) -> set[str]:
        if not self.path.is_dir():
            return set()
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries if entry.is_file()}

    def folders(self) -> set[str]:
        if not self.path.is_dir():
            return set()
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries if entry.is_dir()}

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def stamp(self, name: str) -> tuple[int, float]:
        found = (self.path / name).stat()
        return found.st_size, found.st_mtime_ns / 1e9

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.path / name, columns=columns)

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(str(self.path / name))

    def fetched(self, name: str) -> AbstractContextManager[LocalFile]:
        return (self.path / name).open("rb")

    def scratch(self) -> BufferedRandom:
        return tempfile.TemporaryFile(dir=self.path)

    def writing(self, name: str) -> AbstractContextManager[BufferedRandom]:
        self.path.mkdir(parents=True, exist_ok=True)
        return writing(self.path / name)

    def write(self, name: str, content: bytes | mmap.mmap) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def delete_folder(self, name: str) -> None:
        if (self.path / name).is_dir():
            shutil.rmtree(self.path / name)
