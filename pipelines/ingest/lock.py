"""Keeping other downloads out of a folder of shards.

On this machine and on what it mounts the system holds the lock, which goes with its process. An object store
has no locks: there the lock is an object that its owner writes again every few seconds. Who finds one watches
it. If it changes, the owner lives; if it stays the same for a while, the owner is dead and the lock is taken
over. No clocks are compared.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pipelines.config.errors import UserError
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.lock import locked_if_free

PLACE, FILE = "plan", "lock"
BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""An owner who did not write for so long is taken for dead, by others and by itself."""
SETTLE_SECONDS = 1.0
"""Of two who find no lock at the same time, the first finds the other's after this wait."""


@contextmanager
def download_lock(output: Folder) -> Iterator[Callable[[], None]]:
    """Keep other downloads out of a folder; gives a function that raises if the lock was lost on the way.

    Raises:
        UserError: another download has the folder, or nothing can be written there.
    """
    if output.local_path is None:
        with _Lease(output) as lease:
            yield lease.check
    else:
        with _locked_here(output.local_path):
            yield lambda: None


@contextmanager
def _locked_here(output: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            (output / PLACE).mkdir(parents=True, exist_ok=True)
            is_free = held.enter_context(locked_if_free(output / PLACE / FILE))
        except OSError as error:
            raise UserError(
                f"{output}: cannot write there ({error.strerror}); choose another folder"
            ) from error
        if not is_free:
            raise _taken(output)
        yield


class _Lease:
    """A lock in an object store."""

    def __init__(self, output: Folder) -> None:
        self.output = output
        self._folder = output / PLACE
        self._owner = uuid.uuid4().hex
        self._is_lost, self._is_over = Event(), Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "_Lease":
        self._wait_for_the_dead()
        self._write(0)
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine():
            raise _taken(self.output)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()
        if not self._is_lost.is_set() and self._is_mine():
            self._folder.delete(FILE)

    def check(self) -> None:
        """Raises a UserError if another download took the folder over."""
        if self._is_lost.is_set():
            raise UserError(
                f"{self.output}: the store did not answer for {STALE_SECONDS:g} s, or another download took "
                "the folder over; the same command goes on from here"
            )

    def _wait_for_the_dead(self) -> None:
        found = self._read()
        if found is None:
            return
        print(f"[download] {self.output} is locked; waiting for a sign of life of its owner", flush=True)
        until = time.monotonic() + STALE_SECONDS
        while time.monotonic() < until:
            time.sleep(BEAT_SECONDS / 5)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise _taken(self.output)

    def _keep(self) -> None:
        beat, written = 0, time.monotonic()
        while not self._is_over.wait(BEAT_SECONDS):
            try:
                if not self._is_mine():
                    return self._is_lost.set()
                self._write(beat := beat + 1)
                written = time.monotonic()
            except OSError:  # the store may answer again
                if time.monotonic() - written > STALE_SECONDS:
                    return self._is_lost.set()

    def _is_mine(self) -> bool:
        found = self._read()
        return found is not None and found["owner"] == self._owner

    def _read(self) -> dict[str, Any] | None:
        try:
            return self._folder.read_json(FILE)
        except FileNotFoundError:
            return None

    def _write(self, beat: int) -> None:
        self._folder.write_json(FILE, {"owner": self._owner, "beat": beat})


def _taken(output: Path | Folder) -> UserError:
    return UserError(f"{output}: another download writes there; wait for its end or choose another folder")
