"""Files and folders of this machine that appear whole or not at all.

They are written beside their place, made durable, and renamed: a kill, a full disk or a power failure leaves
what was there before.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path


def temporary_name(name: str) -> str:
    """What a file is called until it is whole.

    It is another one for each writer: a killed driver's actors live some seconds longer, and no two may write
    one file.
    """
    return f"{name}.{uuid.uuid4().hex[:8]}.tmp"


@contextmanager
def writing(file: Path) -> Iterator[BufferedRandom]:
    """A stream to write and read, which becomes the file on exit; an exception leaves nothing."""
    temporary = file.with_name(temporary_name(file.name))
    try:
        with temporary.open("w+b") as stream:
            yield stream
            sync(stream)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the space
        raise


def delete_unfinished(folder: Path, pattern: str) -> None:
    """Delete what killed writers left of the files of such names, and nothing else that others call .tmp."""
    for leftover in folder.glob(f"{pattern}.{'[0-9a-f]' * 8}.tmp"):
        leftover.unlink()


def unfinished(folder: Path) -> Path:
    """Where a folder is written until it is whole; the same for all who write it together."""
    return folder.with_name(f"{folder.name}.tmp")


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, which takes the name of `folder` on exit, in place of a former one.

    An exception leaves nothing of it, and the former one as it was. What a killed writer left is deleted by
    the next one.
    """
    temporary = unfinished(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync_path(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync(stream: BufferedRandom) -> None:
    """Make durable what was written to a stream so far."""
    stream.flush()
    os.fsync(stream.fileno())


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
