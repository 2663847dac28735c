"""How a download goes while it runs: counted by one actor, shown by one thread."""

import time
from collections import Counter, deque
from collections.abc import Callable
from threading import Event, Thread

from pipelines.tracking.journal import Journal
from pipelines.tracking.terminal import Progress
from vlp.shards.outcome import SUCCESS

SHOW_SECONDS = 2.0


class Board:
    """Adds up what the workers report, and tells them to stop when too little succeeds.

    Args:
        floor: share of the last `window` URLs that has to succeed.
    """

    def __init__(self, *, floor: float, window: int) -> None:
        self.floor, self.window = floor, window
        self._outcomes = Counter[str]()
        self._of_shard: dict[str, Counter[str]] = {}
        self._attempts = Counter[str]()
        self._history = deque([(0, 0)])
        self._problem = ""

    def begin(self, name: str) -> int:
        """A shard is begun; how often it was so far."""
        self._attempts[name] += 1
        return self._attempts[name]

    def report(self, name: str, outcomes: Counter[str]) -> bool:
        """The outcomes of a shard so far; whether to go on."""
        self._outcomes.update(outcomes)
        self._outcomes.subtract(self._of_shard.get(name, Counter()))
        self._of_shard[name] = Counter(outcomes)
        self._check()
        return not self._problem

    def outcomes(self) -> Counter[str]:
        """Of all shards that were reported."""
        return +self._outcomes

    def problem(self) -> str:
        """Why the workers stop; empty if they need not."""
        return self._problem

    def _check(self) -> None:
        total, successes = self._outcomes.total(), self._outcomes[SUCCESS]
        self._history.append((total, successes))
        while len(self._history) > 1 and self._history[1][0] <= total - self.window:
            self._history.popleft()
        num_urls, num_successes = total - self._history[0][0], successes - self._history[0][1]
        if num_urls >= self.window and num_successes < self.floor * num_urls and not self._problem:
            self._problem = (
                f"only {num_successes / num_urls:.1%} of the last {num_urls:,} URLs succeeded, "
                f"less than min_success_rate={self.floor:g}; most failed by {top_reasons(self._outcomes)}"
            )


class Monitor:
    """Context in which progress is printed and journaled every two seconds.

    Args:
        read: gives the outcomes since the start.
        before: outcomes of the URLs that are not asked for any more.
        num_requests: URLs that were asked for before, counted once for each time; the steps go on from there.
        total: number of all URLs.
    """

    def __init__(
        self,
        read: Callable[[], Counter[str]],
        *,
        before: Counter[str],
        num_requests: int,
        total: int,
        journal: Journal,
    ) -> None:
        self._read, self._before, self._journal = read, before, journal
        self._num_requests = num_requests
        self._shown = 0
        self._progress = Progress("download", total, "URLs", every_seconds=0)
        self._progress.update(before.total())
        self._started = time.monotonic()
        self._is_over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()
        if kind is None:
            self._show()

    def _watch(self) -> None:
        while not self._is_over.wait(SHOW_SECONDS):
            self._show()

    def _show(self) -> None:
        new = self._read()
        outcomes = self._before + new
        if new.total() < max(1, self._shown):  # a process died, and its part is counted anew
            return
        self._shown = new.total()
        rate = new[SUCCESS] / (time.monotonic() - self._started)
        metrics: dict[str, float] = {f"download/{outcome}": count for outcome, count in outcomes.items()}
        metrics["download/success_rate"] = outcomes[SUCCESS] / outcomes.total()
        metrics["download/images_per_second"] = rate
        self._journal.metrics(metrics, step=self._num_requests + new.total())
        reasons = top_reasons(outcomes)
        note = f"{rate:,.0f} images/s, {metrics['download/success_rate']:.1%} succeeded"
        self._progress.update(outcomes.total(), note + (f"; {reasons}" if reasons else ""))


def top_reasons(outcomes: Counter[str]) -> str:
    """The three most frequent failures, with their counts."""
    failures = [(outcome, count) for outcome, count in outcomes.most_common() if outcome != SUCCESS]
    return ", ".join(f"{outcome} {count:,}" for outcome, count in failures[:3])
