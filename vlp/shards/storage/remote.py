"""Folders in object stores and other file systems that pyarrow knows.

Credentials come from where the store's own tools take them: for S3 the AWS environment variables, the files
of ~/.aws, or the machine's role. The endpoint of another store that speaks S3 is AWS_ENDPOINT_URL_S3, or part
of the URI, which reaches every process that the URI reaches:
s3://bucket/shards?endpoint_override=http://minio:9000&region=us-east-1
"""

import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BufferedRandom
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from vlp.core.messages import one_line
from vlp.shards.storage.folder import Folder, FolderError, UnreachableError
from vlp.shards.storage.whole import temporary_name

CHUNK_BYTES = 1 << 23  # a request each: small ones wait more than they read
OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss")
OTHERS = ("hdfs",)
FSSPEC = "fsspec+"
UNREACHABLE = "NETWORK_CONNECTION|TIMEOUT|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|HTTP status 5"
REMEDIES = {
    "NO_SUCH_BUCKET": "there is no such bucket; create it, or correct the address",
    UNREACHABLE: (
        "the store does not answer; check the network, and for a store other than AWS set "
        "AWS_ENDPOINT_URL_S3 or add ?endpoint_override=http://HOST:PORT to the address"
    ),
    "ACCESS_DENIED|ACCESS_KEY|SIGNATURE|CLIENT_TOKEN|UNRECOGNIZED_CLIENT|AUTHENTICATION": (
        "the store refuses the credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of someone who "
        "may read and write there"
    ),
}


class RemoteFolder(Folder):
    """A folder behind a URI: s3://, gs:// and abfs:// as pyarrow reads them, any of fsspec's as fsspec+X://.

    Raises:
        ValueError: nothing is known that reads it, or it holds a password, which would be logged.
    """

    def __init__(self, uri: str) -> None:
        scheme = uri.partition("://")[0]
        if scheme not in (*OBJECT_STORES, *OTHERS) and not scheme.startswith(FSSPEC):
            known = ", ".join(f"{name}://" for name in (*OBJECT_STORES, *OTHERS))
            raise ValueError(f"nothing reads {scheme}:// folders; valid: {known}, {FSSPEC}NAME:// of fsspec")
        if urlsplit(uri).password is not None:
            raise ValueError(
                "the address holds a password, which would be logged; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in the environment"
            )
        if not urlsplit(uri).netloc and not scheme.startswith(FSSPEC):
            raise ValueError(f"{uri} names no bucket")
        self.uri = uri
        self._appears_whole = scheme in OBJECT_STORES

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "RemoteFolder":
        address, mark, options = self.uri.partition("?")
        return RemoteFolder(f"{address.rstrip('/')}/{name}{mark}{options}")

    @property
    def name(self) -> str:
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "RemoteFolder":
        address, mark, options = self.uri.partition("?")
        above = address.rstrip("/").rpartition("/")[0]
        return self if above.endswith("/") else RemoteFolder(f"{above}{mark}{options}")

    @property
    def local_path(self) -> None:
        return None

    def absolute(self, start: Path | None = None) -> "RemoteFolder":
        return self

    def names(self) -> set[str]:
        return {entry.base_name for entry in self._entries() if entry.is_file}

    def folders(self) -> set[str]:
        return {entry.base_name for entry in self._entries() if not entry.is_file}

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return file.size()

    def stamp(self, name: str) -> tuple[int, float]:
        with self.told():
            filesystem, path = _resolve(self.uri)
            found = filesystem.get_file_info(f"{path}/{name}")
        if not found.is_file:
            raise FileNotFoundError(f"{self / name}")
        return found.size or 0, (found.mtime_ns or 0) / 1e9

    def read(self, name: str) -> bytes:
        with self.told(), self.open(name) as file:
            return file.read()

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        with self.told(), self.open(name) as file:
            return pq.read_table(file, columns=columns)

    def open(self, name: str) -> pa.NativeFile:
        with self.told():
            filesystem, path = _resolve(self.uri)
            return filesystem.open_input_file(f"{path}/{name}")

    @contextmanager
    def fetched(self, name: str) -> Iterator[BufferedRandom]:
        with self.scratch() as copy:
            with self.told(), self.open(name) as file:
                shutil.copyfileobj(file, copy, CHUNK_BYTES)
            copy.seek(0)
            yield copy

    def scratch(self) -> BufferedRandom:
        return tempfile.TemporaryFile()

    @contextmanager
    def writing(self, name: str) -> Iterator[BufferedRandom]:
        with self.scratch() as stream:
            yield stream
            if not stream.seek(0, os.SEEK_END):
                return self._put(name, b"")
            stream.flush()
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self._put(name, content)

    def write(self, name: str, content: bytes | mmap.mmap) -> None:
        self._put(name, content)

    def delete(self, name: str) -> None:
        with self.told(), suppress(FileNotFoundError):
            filesystem, path = _resolve(self.uri)
            filesystem.delete_file(f"{path}/{name}")

    def delete_folder(self, name: str) -> None:
        with self.told(), suppress(FileNotFoundError):
            filesystem, path = _resolve(self.uri)
            filesystem.delete_dir(f"{path}/{name}")

    def _entries(self) -> list[pyarrow.fs.FileInfo]:
        """What is in the folder; nothing if there is no such folder."""
        with self.told():
            filesystem, path = _resolve(self.uri)
            try:
                return filesystem.get_file_info(pyarrow.fs.FileSelector(path))
            except FileNotFoundError:
                return []

    def _put(self, name: str, content: bytes | mmap.mmap) -> None:
        """Write in one call: whatever closes a stream, an exception too, commits what was written so far."""
        with self.told():
            filesystem, path = _resolve(self.uri)
            file = f"{path}/{name}"
            if self._appears_whole:
                _write(filesystem, file, content)
            else:
                filesystem.create_dir(path, recursive=True)
                temporary = f"{path}/{temporary_name(name)}"
                _write(filesystem, temporary, content)
                filesystem.move(temporary, file)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What the file system refuses, in one line with the remedy."""
        try:
            yield
        except (FileNotFoundError, FolderError):
            raise
        except (OSError, pa.ArrowException) as error:
            is_away = re.search(UNREACHABLE, str(error))
            kind = UnreachableError if is_away else FolderError
            raise kind(f"{self.uri}: {_remedy(str(error))}") from error


def _write(filesystem: pyarrow.fs.FileSystem, file: str, content: bytes | mmap.mmap) -> None:
    with filesystem.open_output_stream(file) as stream:
        stream.write(content)


def _remedy(message: str) -> str:
    found = (remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, message))
    return next(found, one_line(message)[:300])


@lru_cache(maxsize=64)
def _resolve(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    return filesystem, path.rstrip("/")
