"""What is said on the terminal: how far a long step is, and what tracking cannot do."""

import sys
import time
from datetime import timedelta

from pipelines.config.secrets import without_secrets


class Progress:
    """Prints how far a step is, how fast it goes and how long it will take."""

    def __init__(self, label: str, total: int, unit: str, *, every_seconds: float = 2.0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.every_seconds = every_seconds
        self._start = self._last = time.monotonic()
        self._first_done: int | None = None

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total are finished; prints if it is time or the last one."""
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = 0 if done >= self.total else done
        if now - self._last < self.every_seconds and done < self.total:
            return
        self._last = now
        elapsed = max(now - self._start, 1e-9)
        rate = (done - self._first_done) / elapsed
        left = f", {timedelta(seconds=round((self.total - done) / rate))} left" if rate else ""
        print(
            f"[{self.label}] {done:,}/{self.total:,} {self.unit}{left}{'  ' if note else ''}{note}",
            flush=True,
        )


def warn(message: str) -> None:
    """One line on standard error."""
    print(without_secrets(f"tracking: {message}"), file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line on standard output."""
    print(without_secrets(message), flush=True)
