"""Journals copied to a storage that other machines go on from, while they are written."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.tracking.journal import DELIVERED_NAME
from pipelines.tracking.terminal import warn
from vlp.shards.published import files_below, put, take
from vlp.shards.storage.folder import Folder

PUBLISH_SECONDS = 10.0
FINISH_SECONDS = 60.0


@contextmanager
def published_journals(root: Path, there: Folder | None) -> Iterator[None]:
    """Context in which the journals below a folder are copied to the storage, again and again.

    It begins with what other machines have written of them. A copy that fails stops nothing; it is tried
    again. What was delivered to MLflow is noted on each machine alone.
    """
    if there is None:
        yield
        return
    _take_longer(there, root)
    copies = _Copies(root, there)
    copies.start()
    try:
        yield
    finally:
        copies.finish()


class _Copies(threading.Thread):
    def __init__(self, root: Path, there: Folder) -> None:
        super().__init__(name="journals", daemon=True)
        self.root, self.there = root, there
        self._is_over = threading.Event()
        self._copied: dict[Path, tuple[int, int]] = {}

    def run(self) -> None:
        while not self._is_over.wait(PUBLISH_SECONDS):
            self._copy()
        if failure := self._copy():
            warn(
                f"{self.there} is not complete ({failure}); run the same command again, which copies the rest"
            )

    def finish(self) -> None:
        self._is_over.set()
        self.join(FINISH_SECONDS)

    def _copy(self) -> str:
        """Copy what has changed; why that failed, if it did."""
        try:
            for file in files_below(self.root) if self.root.is_dir() else ():
                stat = file.stat()
                stamp = (stat.st_size, stat.st_mtime_ns)
                if file.name != DELIVERED_NAME and self._copied.get(file) != stamp:
                    put(file, _beside(self.there, self.root, file.parent))
                    self._copied[file] = stamp
        except OSError as error:
            return str(error)
        return ""


def _take_longer(there: Folder, root: Path) -> None:
    """Bring files that are not here, or are longer there: those of journals only grow."""
    for name in there.names():
        file = root / name
        if not file.is_file() or file.stat().st_size < there.size(name):
            take(there, file)
    for name in there.folders():
        _take_longer(there / name, root / name)


def _beside(there: Folder, root: Path, folder: Path) -> Folder:
    return there if folder == root else there / folder.relative_to(root).as_posix()
