"""Folders of files, on this machine or in an object store, with the few verbs that shards need.

What is written appears whole or not at all: on this machine as a temporary file that is made durable and
renamed, in an object store by one upload, of which nothing is visible before its end.
"""

import json
import mmap
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WRITER = uuid.uuid4().hex[:8]
"""In the names of this process's temporary files: a killed driver's actors live some seconds longer, and no
two processes may write one file."""

LocalFile = BufferedReader | BufferedRandom


class FolderError(OSError):
    """A file system refuses: one line that names the folder and the remedy."""


class Folder(ABC):
    """A folder of files; equal and hashed by its address, which `str` gives back.

    Every verb raises FileNotFoundError where there is no such file, and an OSError where the file system
    refuses.
    """

    @staticmethod
    def at(location: "str | Path | Folder") -> "Folder":
        """The folder of a path, or of a URI such as s3://bucket/shards.

        Raises:
            ValueError: it is neither, or no file system is known for the URI.
        """
        if isinstance(location, Folder):
            return location
        if not isinstance(location, str | Path):
            raise ValueError(f"must be a folder, got {location!r}")
        text = str(location)
        if "://" not in text:
            return LocalFolder(Path(text))
        if text.startswith("file://"):
            return LocalFolder(Path(text.removeprefix("file://")))
        from vlp.data.remote_folder import RemoteFolder  # it is a Folder itself

        return RemoteFolder(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        """How a setting of this type is parsed; read by pydantic, as in `StrictConfig`."""
        return {"type": "function-plain", "function": {"type": "no-info", "function": Folder.at}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @abstractmethod
    def __str__(self) -> str:
        """The address."""

    @abstractmethod
    def __truediv__(self, name: str) -> "Folder":
        """A folder in this one; as text, also the address of a file in it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the address."""

    @abstractmethod
    def absolute(self, start: Path | None = None) -> "Folder":
        """The same folder for a process that works elsewhere; a relative path begins at `start`, or here."""

    @abstractmethod
    def names(self) -> set[str]:
        """Names of the files, without those in folders below; empty if there is no such folder."""

    @abstractmethod
    def folders(self) -> set[str]:
        """Names of the folders in this one; empty if there is no such folder."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A whole small file."""

    @abstractmethod
    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or some columns of it."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of, by any number of threads."""

    @abstractmethod
    def fetched(self, name: str) -> AbstractContextManager[LocalFile]:
        """A file to read on a disk of this machine: a copy, where the folder is elsewhere."""

    @abstractmethod
    def scratch(self) -> BufferedRandom:
        """An unnamed file on a disk of this machine, which is gone when it is closed or its process dies."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[BufferedRandom]:
        """A stream to write and read, which becomes the file on exit; an exception leaves nothing."""

    @abstractmethod
    def write(self, name: str, content: bytes | mmap.mmap) -> None:
        """Write a whole file."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file if there is one."""

    @abstractmethod
    def delete_folder(self, name: str) -> None:
        """Delete a folder in this one, with all that is in it, if there is one."""

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; a ValueError if it is none."""
        return json.loads(self.read(name))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write(name, json.dumps(content, indent=1).encode())

    def remove_temporary(self) -> None:
        """Delete what writers that were killed left behind."""
        for name in self.names():
            if name.endswith(".tmp"):
                self.delete(name)


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

    @contextmanager
    def writing(self, name: str) -> Iterator[BufferedRandom]:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f"{name}.{WRITER}.tmp"
        try:
            with temporary.open("w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path / name)
        except BaseException:
            temporary.unlink(missing_ok=True)  # a full disk needs the space
            raise

    def write(self, name: str, content: bytes | mmap.mmap) -> None:
        with self.writing(name) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def delete_folder(self, name: str) -> None:
        if (self.path / name).is_dir():
            shutil.rmtree(self.path / name)
