"""A background thread that delivers the journals of runs while the pipeline works on."""

import math
import os
import threading
import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pipelines.tracking.database import ARTIFACTS_NAME
from pipelines.tracking.journal import FILE_NAME, Delivered, Journal
from pipelines.tracking.terminal import say, warn
from vlp.core.messages import one_line
from vlp.shards.storage.lock import locked_if_free

if TYPE_CHECKING:
    from pipelines.tracking.store import Run

LONGEST_BACKOFF_SECONDS = 10.0
SILENT_SECONDS = 10.0
"""After which the end of a command says what it waits for."""


class Delivery:
    """Delivers every journal under `root` to MLflow while the context is open.

    A server that cannot be reached is tried again and again, and keeps nobody waiting but `flush`, with which
    the context ends: that waits as long as the server takes something every `flush_seconds`. What was
    delivered is noted beside each journal, so the next delivery goes on from there, in this process or
    another. One process at a time delivers a root; the others wait for their turn. The first delivery waits
    `first_after_seconds`, or until `flush` asks for it.
    """

    def __init__(
        self,
        root: Path,
        *,
        tracking_uri: str,
        experiment: str,
        first_after_seconds: float = 0.0,
        poll_seconds: float = 1.0,
        flush_seconds: float = 30.0,
    ) -> None:
        self.root = root.absolute()
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.first_after_seconds = first_after_seconds
        self.poll_seconds = poll_seconds
        self.flush_seconds = flush_seconds
        self._next_scan = 0.0
        self._failing = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        waiting = self.flush(self.flush_seconds)
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=1.0)
        if waiting:
            warn(f"{waiting} records wait in {self.root}; they will be delivered at the next start")

    def flush(self, patience_seconds: float) -> int:
        """Deliver what the journals hold now; the number of records that could not be delivered.

        Args:
            patience_seconds: without any record delivered, after which it gives up.
        """
        folders = journals_below(self.root)
        self._next_scan = 0.0
        self._wake.set()
        reached, since, slow_after = -1, 0.0, time.monotonic() + SILENT_SECONDS
        while any(self._waiting(folder, limit=1) for folder in folders):
            now = time.monotonic()
            if (offsets := sum(self._offset(folder) for folder in folders)) != reached:
                reached, since = offsets, now
            elif now > since + patience_seconds:
                break
            if now > slow_after:
                left = sum(self._waiting(folder) for folder in folders)
                say(f"[tracking] {left:,} records are on their way to {self.tracking_uri}")
                slow_after = math.inf
            time.sleep(0.05)
        return sum(self._waiting(folder) for folder in folders)

    @property
    def experiment_id(self) -> str:
        """Of the experiment on the server; empty as long as no run is there."""
        for folder in journals_below(self.root):
            if found := Delivered.load(folder, self.tracking_uri).experiment_id:
                return found
        return ""

    def _offset(self, folder: Path) -> int:
        return Delivered.load(folder, self.tracking_uri).offset

    def _waiting(self, folder: Path, *, limit: int | None = None) -> int:
        return sum(1 for _ in islice(Journal(folder).read(self._offset(folder)), limit))

    def _work(self) -> None:
        while not self.root.is_dir():  # nothing is tracked yet, and may never be
            if self._stop.wait(0.1):
                return
        self._wake.wait(self.first_after_seconds)
        while not self._stop.is_set():
            with locked_if_free(self.root / ".delivery.lock") as is_my_turn:
                if is_my_turn:
                    return self._deliver()
            self._stop.wait(self.poll_seconds)

    def _deliver(self) -> None:
        from pipelines.tracking.store import Run, Store  # in this thread, because loading mlflow takes 1.5 s

        store, runs = Store(self.tracking_uri, self.experiment), dict[Path, Run]()
        delay = self.poll_seconds
        while not self._stop.is_set():
            self._rescan(runs, lambda folder: Run(Journal(folder), store, runs))
            has_more, failure = self._pass(runs)
            self._report(failure)
            if has_more and not failure:
                continue
            delay = min(2 * delay, LONGEST_BACKOFF_SECONDS) if failure else self.poll_seconds
            self._wake.wait(delay)
            self._wake.clear()

    def _rescan(self, runs: "dict[Path, Run]", new_run: "Callable[[Path], Run]") -> None:
        """Look for new journals and forget removed ones, in at most a twentieth of the thread's time."""
        started = time.monotonic()
        if started < self._next_scan:
            return
        found = journals_below(self.root)
        for folder in runs.keys() - set(found):
            del runs[folder]
        runs.update({folder: new_run(folder) for folder in found if folder not in runs})
        now = time.monotonic()
        self._next_scan = now + 20 * (now - started)

    def _pass(self, runs: "dict[Path, Run]") -> tuple[bool, str]:
        """Whether there is more to deliver at once, and why something could not be delivered."""
        has_more, failure = False, ""
        for folder, run in runs.items():
            if self._stop.is_set():
                break
            try:
                has_more |= run.deliver()
            except Exception as error:  # whatever it is, the records stay in the journal and are tried again
                failure = failure or f"{folder.name}: {one_line(error)[:300]}"
        return has_more, failure

    def _report(self, failure: str) -> None:
        if failure and not self._failing:
            warn(f"cannot deliver to {self.tracking_uri} now, records wait in {self.root} ({failure})")
        self._failing = bool(failure)


def load_store() -> None:
    """Load `pipelines.tracking.store`, in a thread of its own, which Ctrl-C and SIGTERM do not reach.

    They would leave the import of MLflow in halves in this thread, and then nothing more could be delivered.
    """
    thread = threading.Thread(target=import_module, args=["pipelines.tracking.store"], daemon=True)
    thread.start()
    thread.join()


def journals_below(root: Path) -> list[Path]:
    """The folders of all journals in a folder."""
    found = []
    for folder, subfolders, files in os.walk(root):
        # Artifacts are many files, and copies of journals among them are not runs.
        subfolders[:] = [name for name in subfolders if name != ARTIFACTS_NAME]
        if FILE_NAME in files:
            found.append(Path(folder))
    return sorted(found)
