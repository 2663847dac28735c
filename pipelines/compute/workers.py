"""Work on many rows at once: by Ray Data's actors, or by processes of this machine without Ray.

A worker is a class, built once in each process and called with one row at a time. A row whose process dies is
worked on again in a new one, so a worker has to leave nothing behind that disturbs its second attempt.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from threading import Lock
from typing import Any

from pipelines.compute.child_process import ChildProcess
from pipelines.compute.cluster import connect
from pipelines.compute.output import without_native_lines
from pipelines.compute.worker_process import Call, Request, Row, Shared, pack
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig

MAX_DEATHS = 5
"""Processes that may die of one row, one after another."""


class Workers(ABC):
    """Processes that share some work."""

    size: int
    """How many there are at most."""

    @abstractmethod
    def share(self, kind: type, **settings: Any) -> Call:
        """Make the one object whose methods the workers of the next `map` may call, given as an argument."""

    @abstractmethod
    def map(
        self, worker: type, arguments: tuple[Any, ...], rows: Sequence[Row], *, num_gpus: int = 0
    ) -> Generator[Row]:
        """What workers, built with these arguments, make of each row, as it comes.

        Args:
            num_gpus: that each has for itself; then there are no more of them than the GPUs allow.
        """


def open_workers(machine: MachineConfig) -> Workers:
    """Workers as the machine's settings want them; a UserError if it has no room."""
    return RayActors(machine) if machine.data_workers else LocalProcesses()


class RayActors(Workers):
    """Actors of Ray Data, each on one CPU, and on GPUs where the work is for them."""

    def __init__(self, machine: MachineConfig) -> None:
        connect(machine, min_cpus=1)
        self.size = machine.data_workers

    def share(self, kind: type, **settings: Any) -> Call:
        """An actor that is started again when it dies."""
        import ray

        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(kind)
        return partial(_call_actor, actor.remote(**settings))

    def map(
        self, worker: type, arguments: tuple[Any, ...], rows: Sequence[Row], *, num_gpus: int = 0
    ) -> Generator[Row]:
        """One block of Ray Data per row."""
        import ray.data

        size = self.size
        if num_gpus:
            size = min(size, int(ray.cluster_resources().get("GPU", 0)) // num_gpus)
        results = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
            worker,
            fn_constructor_args=arguments,
            compute=ray.data.ActorPoolStrategy(size=max(1, min(size, len(rows)))),
            num_cpus=1,
            num_gpus=num_gpus,
        )
        found = iter(results.iter_rows())
        with without_native_lines():  # that an actor cannot start again without its arguments, which are kept
            first = next(found)
        yield first
        yield from found


def _call_actor(actor: Any, method: str, *arguments: Any) -> Any:
    import ray

    return ray.get(getattr(actor, method).remote(*arguments))


class LocalProcesses(Workers):
    """As many processes as this one has CPU cores; what they share is in this one."""

    def __init__(self) -> None:
        self.size = os.cpu_count() or 1
        self._shared: Call | None = None

    def share(self, kind: type, **settings: Any) -> Call:
        """An object of this process, to which the workers' pipes lead."""
        self._shared = Shared(kind(**settings))
        return self._shared

    def map(
        self, worker: type, arguments: tuple[Any, ...], rows: Sequence[Row], *, num_gpus: int = 0
    ) -> Generator[Row]:
        """One row per process at a time, each looked after by a thread; a worker's exception is raised."""
        recipe = pack(worker, arguments)
        crew = [_Place(recipe, self._shared) for _ in range(min(self.size, len(rows)))]
        idle: SimpleQueue[_Place] = SimpleQueue()

        def work(row: Row) -> Row:
            place = idle.get()
            try:
                return place.work(row)
            finally:
                idle.put(place)

        with ExitStack() as stack:
            threads = stack.enter_context(ThreadPool(len(crew)))
            for place in crew:
                idle.put(place)
                stack.callback(place.close)
            yield from threads.imap_unordered(work, rows)


class _Place:
    """The place of one worker: its process, and the next one where that dies."""

    def __init__(self, recipe: bytes, shared: Call | None) -> None:
        self._recipe, self._shared = recipe, shared
        self._child: ChildProcess | None = None
        self._is_closed = False
        self._lock = Lock()

    def work(self, row: Row) -> Row:
        """What the worker makes of a row; its exception is raised."""
        for _ in range(MAX_DEATHS):
            try:
                return self._ask(self._filled(), row)
            except EOFError:
                self._empty()
        raise UserError(
            f"work on {next(iter(row.values()))} ended its process {MAX_DEATHS} times, by lack of memory or "
            "a library that crashes; set machine.data_workers=1 to need less memory"
        )

    def close(self) -> None:
        """End the worker for good, whatever it does."""
        self._is_closed = True
        self._empty()

    def _ask(self, child: ChildProcess, row: Row) -> Row:
        child.send(row)
        while isinstance(answer := child.receive(), Request):
            assert self._shared is not None
            child.send(self._shared(answer.method, *answer.arguments))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _filled(self) -> ChildProcess:
        with self._lock:
            if self._child is None:
                if self._is_closed:
                    raise EOFError
                self._child = ChildProcess("pipelines.compute.worker_process")
                self._child.send(self._recipe)
            return self._child

    def _empty(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child = None
