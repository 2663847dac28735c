"""Folders of files, on this machine or in an object store, with the few verbs that shards need.

What is written appears whole or not at all: on this machine as `whole.py` has it, in an object store by one
upload, of which nothing is visible before its end.
"""

import json
import mmap
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.storage.whole import temporary_name

LocalFile = BufferedReader | BufferedRandom


class FolderError(OSError):
    """A file system refuses: one line that names the folder and the remedy."""


class UnreachableError(FolderError):
    """The store does not answer now; what is there may be read later."""


class Folder(ABC):
    """A folder of files; equal and hashed by its address, which `str` gives back.

    Every verb raises FileNotFoundError where there is no such file, and an OSError where the file system
    refuses.
    """

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

    @property
    @abstractmethod
    def parent(self) -> "Folder":
        """The folder that it is in; itself, if it is in none."""

    @property
    @abstractmethod
    def local_path(self) -> Path | None:
        """The folder in the file system of this machine; None if it lies elsewhere."""

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
    def stamp(self, name: str) -> tuple[int, float]:
        """What changes with a file, and is known without reading it: its bytes, and when it was changed, in
        seconds."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A whole small file."""

    @abstractmethod
    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or some columns of it."""

    def told(self) -> AbstractContextManager[None]:
        """In which what goes wrong with an open file is told as the verbs tell it."""
        return nullcontext()

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

    def columns(self, name: str) -> pa.Schema:
        """Names and types of the columns of a Parquet file."""
        with self.open(name) as file:
            return pq.read_schema(file)

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; a ValueError if it is none."""
        return json.loads(self.read(name))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write(name, json.dumps(content, indent=1).encode())

    def check_writable(self) -> None:
        """Raise an OSError unless files can be written there."""
        name = temporary_name("writable")
        self.write(name, b"vlp")
        self.delete(name)

    def remove_temporary(self) -> None:
        """Delete what writers that were killed left behind."""
        for name in self.names():
            if name.endswith(".tmp"):
                self.delete(name)
