"""Checkpoints copied to their mirror while training goes on."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Condition, Thread

from pipelines.checkpoints.mirror import missing, upload
from pipelines.checkpoints.store import CheckpointPlace, list_saved
from vlp.shards.storage.folder import Folder

FINISH_SECONDS = 600.0
"""How long a run that has ended waits for its last checkpoints to be copied."""
REMEDY = "run the same command again, which copies the rest"


class Mirroring:
    """Keeps a mirror like the checkpoints of a run, in a thread, which neither stops nor delays training.

    What fails is said, and is tried again with the next checkpoint.
    """

    def __init__(self, place: CheckpointPlace, mirror: Folder) -> None:
        self._place = place
        self._mirror = mirror
        self._changed = Condition()
        self._is_due, self._is_over = True, False  # a former process may have left something to do
        self._held: str | None = None
        self._is_incomplete = False
        self._failure: Exception | None = None
        self._thread = Thread(target=self._work, name="mirroring", daemon=True)
        self._thread.start()

    def make_room(self, step: int, *, keep: Collection[str] = ()) -> None:
        """Delete the run's superfluous checkpoints up to a step, but for the one that is being copied.

        Args:
            keep: names of others that stay for now.
        """
        with self._changed:
            held = [self._held] if self._held else []
            self._place.retention.apply(self._place.folder, step=step, keep=[*keep, *held])

    def notify(self) -> None:
        """There is a new checkpoint, or more is known of one."""
        with self._changed:
            self._is_due = True
            self._changed.notify()

    def stop(self) -> None:
        """No new checkpoint will come: the thread ends when it has copied the last one, or failed to."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def finish(self) -> None:
        """Wait for that, for a while, and say what is left to do."""
        self._thread.join(FINISH_SECONDS)
        if self._failure:
            raise self._failure
        if self._thread.is_alive():
            self._say(f"{self._mirror} is not complete after {FINISH_SECONDS:g} s: {REMEDY}")
            return
        self.make_room(list_saved(self._place.folder)[-1].step)  # nothing is held any more
        if self._is_incomplete:
            self._say(f"{self._mirror} is not complete: {REMEDY}")

    def _work(self) -> None:
        while self._wait():
            try:
                self._copy()
                self._is_incomplete = False
            except OSError as error:
                self._is_incomplete = True
                self._say(f"not copied: {error}; the next checkpoint is another try")
            except Exception as error:
                self._failure = error
                return

    def _wait(self) -> bool:
        """Until there is something to do, or nothing will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_due or self._is_over)
            is_due, self._is_due = self._is_due, False
            return is_due

    def _copy(self) -> None:
        checkpoints, retention = self._place.folder, self._place.retention
        for saved in missing(checkpoints, self._mirror, retention):
            with self._holding(saved.name) as is_there:
                if is_there:
                    if self._place.copy_record:
                        self._place.copy_record()
                    upload(checkpoints / saved.name, self._mirror)
        if here := list_saved(checkpoints):
            retention.apply(self._mirror, step=here[-1].step)

    @contextmanager
    def _holding(self, name: str) -> Iterator[bool]:
        """Keep a checkpoint from being deleted; gives whether it is still there."""
        with self._changed:
            self._held = name
            is_there = (self._place.folder / name).is_dir()
        try:
            yield is_there
        finally:
            self._held = None

    def _say(self, line: str) -> None:
        print(f"[{self._place.label}] mirror: {line}", flush=True)
