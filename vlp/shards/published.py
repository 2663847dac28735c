"""Folders of this machine that are copied whole to where every machine finds them.

A folder is published once its list of files is there, which is written last; so it is fetched whole or not
at all. A folder in it whose manifest is there has its files there, too.
"""

import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath

from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing

LIST = "published.json"
CHUNK_BYTES = 1 << 23
COPIED_AT_ONCE = 8  # of many small files each waits for the store alone

Files = Mapping[str, tuple[int, int]]
"""What each file is known again by: its size, and when it was written, in nanoseconds."""


def publish(folder: Path, there: Folder) -> None:
    """Copy all files of a folder, but for hidden and temporary ones; does nothing where they are there."""
    files = {file.relative_to(folder).as_posix(): _stamp(file) for file in files_below(folder)}
    if _listed(there) == files:
        return
    there.delete(LIST)  # of what was published here before
    same = {parent for parent in _parents(files) if _is_same(folder / parent, _below(there, parent))}
    todo = [PurePosixPath(name) for name in files if PurePosixPath(name).parent not in same]
    with ThreadPool(COPIED_AT_ONCE) as pool:
        for batch in _manifests_last(todo):
            pool.starmap(put, [(folder / path, _below(there, path.parent)) for path in batch])
    there.write_json(LIST, files)


def fetch(there: Folder, folder: Path) -> bool:
    """Bring what is not here of a folder that was published; returns whether it was."""
    files = _listed(there)
    if files is None:
        return False
    same = {parent for parent in _parents(files) if _is_same(folder / parent, _below(there, parent))}
    todo = [PurePosixPath(name) for name in files if not _is_here(folder, name, files, same)]

    def bring(path: PurePosixPath) -> None:
        file, (_, written) = folder / path, files[path.as_posix()]
        take(_below(there, path.parent), file)
        os.utime(file, ns=(written, written))

    with ThreadPool(COPIED_AT_ONCE) as pool:
        for batch in _manifests_last(todo):
            pool.map(bring, batch)
    return True


def put(file: Path, there: Folder) -> None:
    """Copy one file to a folder."""
    if not file.stat().st_size:
        return there.write(file.name, b"")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        there.write(file.name, content)


def take(there: Folder, file: Path) -> None:
    """Bring the file of this name from a folder to its place on this machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with there.fetched(file.name) as source, writing(file) as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and of those in it, but for hidden and temporary ones."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith(".tmp"):
            continue
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _listed(there: Folder) -> Files | None:
    try:
        return {name: (size, written) for name, (size, written) in there.read_json(LIST).items()}
    except FileNotFoundError:
        return None


def _parents(files: Files) -> set[PurePosixPath]:
    return {PurePosixPath(name).parent for name in files}


def _below(there: Folder, parent: PurePosixPath) -> Folder:
    return there / parent.as_posix() if parent.name else there


def _is_here(folder: Path, name: str, files: Files, same: set[PurePosixPath]) -> bool:
    file = folder / name
    return file.is_file() and (_stamp(file) == files[name] or PurePosixPath(name).parent in same)


def _is_same(folder: Path, there: Folder) -> bool:
    """Whether a folder has a manifest here, and the same one there, which was written after its files."""
    try:
        return (folder / MANIFEST).read_bytes() == there.read(MANIFEST)
    except FileNotFoundError:
        return False


def _manifests_last(paths: list[PurePosixPath]) -> list[list[PurePosixPath]]:
    """A manifest says that the other files are there."""
    others = [path for path in paths if path.name != MANIFEST]
    return [others, [path for path in paths if path.name == MANIFEST]]
