"""A real server on this machine that speaks S3."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs
import pytest

from tests.servers.ports import free_port
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    address: str
    pid: int

    def fall_silent(self) -> None:
        """Take connections and answer nothing, as behind a network that is cut."""
        os.kill(self.pid, signal.SIGSTOP)

    def speak_again(self) -> None:
        """Answer all that was asked meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def bucket(self, name: str | None = None) -> Folder:
        """A folder in a bucket of its own; its address names the server, so that any process finds it."""
        name = name or f"bucket-{uuid.uuid4().hex[:8]}"
        options = f"endpoint_override={self.address}&allow_bucket_creation=true"
        filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{name}/?{options}")
        filesystem.create_dir(name)
        return open_folder(f"s3://{name}/shards?endpoint_override={self.address}")

    def unfinished_uploads(self, folder: Folder) -> int:
        """Uploads into the bucket of a folder that were begun and neither ended nor taken back."""
        bucket = str(folder).removeprefix("s3://").partition("/")[0]
        with urllib.request.urlopen(f"{self.address}/{bucket}?uploads") as answer:
            return answer.read().count(b"<UploadId>")


@contextmanager
def serving(
    environment: Mapping[str, str], port: int | None = None, *, host: str = "127.0.0.1"
) -> Iterator[ObjectStore]:
    """Run a server at an address of this machine; the test is skipped where there is none to run."""
    beside = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    program = os.environ.get("MOTO_SERVER") or beside
    if program is None:
        pytest.skip("needs moto_server beside python, or its path in MOTO_SERVER")
    port = port or free_port()
    arguments = [program, "-H", host, "-p", str(port)]
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        store = ObjectStore(f"http://{host}:{port}", server.pid)
        try:
            _wait(server, store)
            yield store
        finally:
            server.kill()


def _wait(server: subprocess.Popen[bytes], store: ObjectStore) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(store.address).close()
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("moto_server ended before it answered")
