"""Records of processes that do not see the driver's folders: they go to its node as they are made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.tracking.journal import Journal
from vlp.shards.published import files_below
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing


class Keeper:
    """Writes on the driver's node; what it is sent by one worker is written in that order."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._failure: OSError | None = None

    def write_line(self, line: bytes) -> None:
        """A record of the run."""
        self._attempt(lambda: self._journal.write_line(line))

    def write_file(self, file: Path, content: bytes) -> None:
        """A file that a record names, at its place on this node."""
        self._attempt(lambda: _write(file, content))

    def last_step(self) -> int:
        """The last step of which there are metrics; 0 where there are none."""
        steps = (one.fields["step"] for one in self._journal.read() if one.kind == "metrics")
        return max(steps, default=0)

    def copy_to(self, there: Folder) -> None:
        """Copy the journal; raises what has failed before, too."""
        self.check()
        self._journal.copy_to(there)

    def check(self) -> None:
        """Raise what has failed of what was sent so far; nobody waited for it."""
        if self._failure is not None:
            raise self._failure

    def exists(self, file: Path) -> bool:
        """Whether a file is on this node."""
        return file.exists()

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._failure = error


@dataclass(frozen=True)
class SentJournal(Journal):
    """A journal on another node; its records and their files are sent, and not waited for."""

    keeper: Any

    def write_line(self, line: bytes) -> None:
        self.keeper.write_line.remote(line)

    def artifact(self, path: Path, *, folder: str = "") -> None:
        for file in files_below(path) if path.is_dir() else [path]:
            self._send(file)
        super().artifact(path, folder=folder)

    def image(self, key: str, path: Path, *, step: int = 0) -> None:
        self._send(path)
        super().image(key, path, step=step)

    def copy_to(self, there: Folder) -> None:
        answered(self.keeper.copy_to.remote(there))

    def _send(self, file: Path) -> None:
        self.keeper.write_file.remote(file.absolute(), file.read_bytes())


def answered(reference: Any) -> Any:
    """What a keeper was asked, once it has answered; an OSError is raised as it was there."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)  # however long: without the driver's node the work is over
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, OSError) else error) from None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file) as stream:
        stream.write(content)
