"""The order in which URLs are asked for: many at a time, but few of each host."""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Condition


@dataclass
class Job:
    """One URL on its way to an outcome."""

    index: int
    url: str
    host: str
    attempts: int = 0
    seconds: float = 0.0
    """Spent on the attempts so far."""


@dataclass
class _Host:
    waiting: deque[Job] = field(default_factory=deque)
    active: int = 0
    next_start: float = 0.0
    is_queued: bool = False
    """Whether the queue of hosts holds it; at most once."""
    paused: float = 0.0
    """Seconds that it has had the others wait in all."""
    timeouts: int = 0
    """Requests in a row that it has not answered in time."""


class HostQueue:
    """Hands jobs to threads, in turn from every host that may be asked now.

    Args:
        concurrency: jobs of one host that are under way at a time.
        interval: seconds from the start of one job of a host to the next.
        max_timeouts: requests in a row without an answer after which a host counts as silent.
        max_pause: seconds that one host may have its jobs wait, in all; so no host holds up the rest.
    """

    def __init__(
        self, jobs: Iterable[Job], *, concurrency: int, interval: float, max_pause: float, max_timeouts: int
    ) -> None:
        self.concurrency, self.interval, self.max_pause = concurrency, interval, max_pause
        self.max_timeouts = max_timeouts
        self._hosts: dict[str, _Host] = {}
        self._queue: list[tuple[float, int, _Host]] = []
        self._later: list[tuple[float, int, Job]] = []
        self._ticket = itertools.count()
        self._changed = Condition()
        self._is_closed = False
        self._unfinished = 0
        with self._changed:
            for job in jobs:
                self._unfinished += 1
                self._add(job)

    def take(self) -> Job | None:
        """The next job, when its time has come; None after the last one is finished."""
        with self._changed:
            while not self._is_closed and self._unfinished:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._add(heapq.heappop(self._later)[2])
                job = self._next(now)
                if job is not None:
                    return job
                due = [heap[0][0] for heap in (self._queue, self._later) if heap]
                self._changed.wait(min(due) - now if due else None)
            return None

    def finish(self, job: Job) -> None:
        """A job has its outcome."""
        with self._changed:
            self._unfinished -= 1
            self._release(job)
            if not self._unfinished:
                self._changed.notify_all()

    def postpone(self, job: Job, seconds: float) -> None:
        """A job is to be handed out once more, not before so many seconds have passed."""
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._ticket), job))
            self._release(job)
            self._changed.notify()

    def pause(self, host: str, seconds: float) -> None:
        """A host wants to be left alone for so many seconds."""
        with self._changed:
            state = self._hosts[host]
            start = max(time.monotonic(), state.next_start)
            end = time.monotonic() + seconds
            granted = min(max(end - start, 0.0), self.max_pause - state.paused)
            state.paused += granted
            state.next_start = start + granted

    def note(self, host: str, *, timed_out: bool) -> None:
        """How the host took a request."""
        with self._changed:
            state = self._hosts[host]
            state.timeouts = state.timeouts + 1 if timed_out else 0

    def is_silent(self, host: str) -> bool:
        """Whether a host has not answered so many requests in a row that more would be in vain."""
        return self._hosts[host].timeouts >= self.max_timeouts

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _next(self, now: float) -> Job | None:
        while self._queue and self._queue[0][0] <= now:
            _, _, host = heapq.heappop(self._queue)
            host.is_queued = False
            if host.next_start > now:  # paused since it was queued
                self._offer(host)
                continue
            host.active += 1
            host.next_start = now + self.interval
            job = host.waiting.popleft()
            self._offer(host)
            return job
        return None

    def _add(self, job: Job) -> None:
        host = self._hosts.setdefault(job.host, _Host())
        host.waiting.append(job)
        self._offer(host)

    def _offer(self, host: _Host) -> None:
        if host.waiting and host.active < self.concurrency and not host.is_queued:
            host.is_queued = True
            heapq.heappush(self._queue, (host.next_start, next(self._ticket), host))
            self._changed.notify()

    def _release(self, job: Job) -> None:
        host = self._hosts[job.host]
        host.active -= 1
        self._offer(host)
