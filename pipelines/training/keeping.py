"""Records of workers that do not see the driver's folders: they go to the driver's node as they are made."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.tracking.journal import Journal
from pipelines.training.job import TrainJob
from vlp.shards.published import files_below
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing

FLUSH_SECONDS = 60.0


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
        _answer(self.keeper.copy_to.remote(there))

    def _send(self, file: Path) -> None:
        self.keeper.write_file.remote(file.absolute(), file.read_bytes())


@dataclass(frozen=True)
class FileThere:
    """A file on the driver's node, of which is known what was so when it was last asked."""

    file: Path
    keeper: Any
    asked: list[Any]
    """What was asked and is not answered yet; one at most."""

    def exists(self) -> bool:
        """Whether it was there; asks again, and waits for no answer."""
        import ray

        if self.asked and ray.wait(self.asked, timeout=0)[0]:
            return bool(ray.get(self.asked.pop()))
        if not self.asked:
            self.asked.append(self.keeper.exists.remote(self.file))
        return False


def kept_here(job: TrainJob) -> TrainJob:
    """The job with a keeper on this node, for workers of others, where those share no folder with it."""
    if job.journal_there is None or not job.machine.worker_counts.most:
        return job
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    keeper: Any = ray.remote(num_cpus=0)(Keeper)
    return replace(job, keeper=keeper.options(scheduling_strategy=here).remote(job.journal))


def on_this_node(job: TrainJob) -> TrainJob:
    """The job for a worker, which may be on another node than the driver."""
    if job.keeper is None:
        return job
    return replace(job, journal=SentJournal(job.journal.folder, job.keeper))


def stop_file_of(job: TrainJob) -> Path | FileThere:
    """What asks a worker to end."""
    return job.stop_file if job.keeper is None else FileThere(job.stop_file, job.keeper, [])


def delivered(job: TrainJob) -> None:
    """Wait for what a worker has sent.

    Raises:
        OSError: it could not be written.
    """
    if job.keeper is not None:
        _answer(job.keeper.check.remote())


def _answer(reference: Any) -> None:
    import ray
    from ray.exceptions import RayTaskError

    try:
        ray.get(reference, timeout=FLUSH_SECONDS)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, OSError) else error) from None


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file) as stream:
        stream.write(content)
