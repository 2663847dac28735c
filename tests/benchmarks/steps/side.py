"""Training steps of different programs in turns, each program in a process of its own, as in training.

What a program sets for its whole process, such as how memory is allocated, is a part of its step, and would
be a part of the other's in one process.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

Steps = Mapping[str, Callable[[], Any]]
"""What a program can do, by name; a call of one is one step."""

WARM_UP_TURNS = 2


class Turn(NamedTuple):
    """What one step took."""

    seconds: float
    peak_mib: float
    """On a GPU what was allocated at most, else the memory of the process at its largest."""


class Side:
    """A process that builds its steps once, and does one whenever it is told to."""

    def __init__(self, build: Callable[..., Steps], *arguments: Any, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        work = (theirs, build, arguments, device, threads)
        self._process = context.Process(target=_serve, args=work, daemon=True)
        self._process.start()
        theirs.close()
        self.steps: list[str] = self._connection.recv()

    def __call__(self, step: str, repetitions: int) -> Turn:
        """The mean of so many steps, one after another."""
        self._connection.send((step, repetitions))
        return self._connection.recv()

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


class Turns(NamedTuple):
    """One step's turns; those of the same position were neighbours in time."""

    seconds: list[float]
    peak_mib: float

    def rates(self, amount: int) -> list[float]:
        """So much per step, in each turn's units per second."""
        return [amount / seconds for seconds in self.seconds]


def in_turns(sides: Mapping[str, Side], *, runs: int, repetitions: int) -> dict[str, Turns]:
    """Every step of every side, in turns, by `side step`; the first turns only warm up."""
    turns: dict[str, list[Turn]] = {}
    for _ in range(WARM_UP_TURNS + runs):
        for name, side in sides.items():
            for step in side.steps:
                turns.setdefault(f"{name} {step}", []).append(side(step, repetitions))
    for side in sides.values():
        side.close()
    counted = {name: done[WARM_UP_TURNS:] for name, done in turns.items()}
    return {
        name: Turns([turn.seconds for turn in done], median(turn.peak_mib for turn in done))
        for name, done in counted.items()
    }


def _serve(
    connection: Connection, build: Callable[..., Steps], arguments: tuple[Any, ...], device: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    steps = build(*arguments)
    connection.send(list(steps))
    while (told := connection.recv()) is not None:
        connection.send(_do(steps[told[0]], told[1], device))


def _do(step: Callable[[], Any], repetitions: int, device: str) -> Turn:
    _forget_peak(device)
    start = time.perf_counter()
    for _ in range(repetitions):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return Turn((time.perf_counter() - start) / repetitions, _peak_mib(device))


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) / 1024
