"""Files that grow, such as journals, copied to a storage that other machines go on from meanwhile."""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.tracking.journal import DELIVERED_NAME
from pipelines.tracking.terminal import warn
from vlp.shards.published import files_below, put, take
from vlp.shards.storage.folder import Folder

PUBLISH_SECONDS = 10.0
FINISH_SECONDS = 60.0


@contextmanager
def published_files(
    root: Path, there: Folder | None, *, names: Collection[str] | None = None
) -> Iterator[None]:
    """Context in which files below a folder are copied to the storage, again and again, and at its end.

    It begins with what other machines have written of them. A copy that fails stops nothing; it is tried
    again. What was delivered to MLflow is noted on each machine alone.

    Args:
        names: of files of the folder itself; None for all, with those of folders in it.
    """
    if there is None:
        yield
        return
    _take_longer(there, root, names)
    copies = _Copies(root, there, names)
    copies.start()
    try:
        yield
    finally:
        copies.finish()


class _Copies(threading.Thread):
    def __init__(self, root: Path, there: Folder, names: Collection[str] | None) -> None:
        super().__init__(name="publishing", daemon=True)
        self.root, self.there, self.names = root, there, names
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

    def _find(self) -> Iterable[Path]:
        if self.names is not None:
            return [file for name in self.names if (file := self.root / name).is_file()]
        return files_below(self.root) if self.root.is_dir() else ()

    def _copy(self) -> str:
        """Copy what has changed; why that failed, if it did."""
        try:
            for file in self._find():
                stat = file.stat()
                stamp = (stat.st_size, stat.st_mtime_ns)
                if file.name != DELIVERED_NAME and self._copied.get(file) != stamp:
                    put(file, _beside(self.there, self.root, file.parent))
                    self._copied[file] = stamp
        except OSError as error:
            return str(error)
        return ""


def _take_longer(there: Folder, root: Path, names: Collection[str] | None) -> None:
    """Bring files that are not here, or are longer there."""
    for name in there.names() if names is None else there.names().intersection(names):
        file = root / name
        if not file.is_file() or file.stat().st_size < there.size(name):
            take(there, file)
    for name in there.folders() if names is None else ():
        _take_longer(there / name, root / name, None)


def _beside(there: Folder, root: Path, folder: Path) -> Folder:
    return there if folder == root else there / folder.relative_to(root).as_posix()
