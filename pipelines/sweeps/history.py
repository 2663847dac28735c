"""All that happened in a sweep, in the order in which it did: every decision is a function of it.

A file of JSON lines in the sweep's folder. A line counts once its newline is written, so the sweep may be
killed at any point: read again, the file is the state that it had.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.sweeps.samplers import Place

FILE_NAME = "history.jsonl"
SHARED = -1
"""In place of a setting's number: the first steps of all trials, trained once for each seed."""


class Run(NamedTuple):
    """A setting, trained by one seed."""

    setting: int
    """Its number in the order of proposals."""
    seed: int
    """Added to the seed of the sweep's run."""

    @property
    def key(self) -> str:
        """Of its folder and its record."""
        name = "shared" if self.setting == SHARED else f"{self.setting:04d}"
        return name + (f"-seed{self.seed}" if self.seed else "")


class Setting(NamedTuple):
    """What was proposed."""

    values: dict[str, Any]
    point: dict[str, Place]
    """Where in the space they lie."""


class Copied(NamedTuple):
    """A run went on with the weights and the optimizer of another one."""

    step: int
    """After which it did."""
    donor: int
    """Setting of the other one."""


@dataclass
class Trace:
    """What is known of a run."""

    results: dict[int, dict[str, float]] = field(default_factory=dict)
    """Step -> metrics."""
    num_steps: int = 0
    """Of the whole run; known from its first result on."""
    stopped_at: int | None = None
    """Step after which it was ended early."""
    failure: str | None = None
    """Why it ended; None unless it failed, and was not tried again since."""
    is_finished: bool = False
    """Whether it came to its last step."""
    paused_at: int = 0
    """Step after which it waits for others, with a checkpoint; 0 if it never did."""
    copies: list[Copied] = field(default_factory=list)
    """In order; what was measured before is the donor's since."""

    @property
    def is_open(self) -> bool:
        """Whether it has to go on."""
        return not self.is_finished and self.stopped_at is None

    @property
    def last_step(self) -> int:
        """Of the last result; 0 before the first one."""
        return max(self.results, default=0)


class History:
    """The state of a sweep, and the file that it is read from and written to."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE_NAME
        self.settings: list[Setting] = []
        self.num_proposals = 0
        """Those included that came to what was there already."""
        self.num_repeats = 0
        """Those since the last one that did not."""
        self.runs: dict[Run, Trace] = {}
        self.exchanged_at = 0
        """Step after which trials went on with each other's weights, last."""
        self.seconds = 0.0
        """That the sweep has been at work."""
        self.gpu_seconds = 0.0
        """That runs held GPUs, times their number."""
        self._last_time = 0.0
        if self.file.exists():
            for line in self.file.read_bytes().split(b"\n")[:-1]:
                if line.strip():
                    self._apply(**json.loads(line))

    def begin(self) -> None:
        """A process begins, or goes on with the sweep; what failed is tried again."""
        self._write("began")

    def propose(self, setting: Setting) -> None:
        """A setting is tried from now on."""
        self._write("proposed", setting=setting._asdict())

    def repeat(self) -> None:
        """A proposal came to what was there already, and is not tried."""
        self._write("repeated")

    def report(
        self,
        run: Run,
        step: int,
        metrics: Mapping[str, float],
        *,
        num_steps: int,
        stops: bool,
        gpu_seconds: float = 0.0,
    ) -> None:
        """A run was measured, and goes on or not.

        Args:
            gpu_seconds: since it was measured before, or went on.
        """
        fields = {"step": step, "metrics": dict(metrics), "num_steps": num_steps, "stops": stops}
        self._write("measured", run=run, **fields, gpu_seconds=gpu_seconds)

    def finish(self, run: Run) -> None:
        """A run came to its end."""
        self._write("finished", run=run)

    def pause(self, run: Run) -> None:
        """A run came to a step where it waits for others, and its checkpoint is there."""
        self._write("paused", run=run, step=self.trace(run).last_step)

    def fail(self, run: Run, reason: str) -> None:
        """A run ended before its end."""
        self._write("failed", run=run, reason=reason)

    def exchange(self, step: int, copies: Mapping[int, tuple[int, Setting]]) -> None:
        """Trials go on after a step: some, by number, with another one's weights and new settings."""
        fields = [[number, donor, setting._asdict()] for number, (donor, setting) in copies.items()]
        self._write("exchanged", step=step, copies=fields)

    @property
    def trials(self) -> dict[Run, Trace]:
        """The runs of settings."""
        return {run: trace for run, trace in self.runs.items() if run.setting != SHARED}

    def folder_of(self, run: Run, *, at_step: int | None = None) -> str:
        """Name of a run's folder, now or when it came to a step: it has a new one with other weights."""
        steps = [copy.step for copy in self.trace(run).copies if at_step is None or copy.step < at_step]
        return run.key + (f"-from{steps[-1]}" if steps else "")

    def trace(self, run: Run) -> Trace:
        """What is known of a run; nothing before it has begun."""
        return self.runs.setdefault(run, Trace())

    def _write(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "time": time.time(), **fields}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.truncate(self._whole(file))  # of a process that was killed while it wrote
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._apply(**json.loads(json.dumps(record)))

    def _whole(self, file: Any) -> int:
        """Bytes up to the last newline."""
        file.seek(0)
        return file.read().rfind(b"\n") + 1

    def _apply(self, kind: str, time: float, run: Any = None, **fields: Any) -> None:
        if kind != "began":
            self.seconds += max(0.0, time - self._last_time)
        self._last_time = time
        if run is None:
            self._apply_to_sweep(kind, **fields)
        else:
            self._apply_to_run(kind, self.trace(Run(*run)), **fields)

    def _apply_to_sweep(self, kind: str, setting: Any = None, **fields: Any) -> None:
        if kind == "began":
            for trace in self.runs.values():
                trace.failure = None
            return
        if kind == "exchanged":
            self._apply_exchange(**fields)
            return
        self.num_proposals += 1
        self.num_repeats = 0 if setting is not None else self.num_repeats + 1
        if setting is not None:
            self.settings.append(Setting(**setting))

    def _apply_exchange(self, step: int, copies: Any) -> None:
        self.exchanged_at = step
        for number, donor, setting in copies:
            self.settings[number] = Setting(**setting)
            trace = self.trace(Run(number, 0))
            trace.results = dict(self.trace(Run(donor, 0)).results)
            trace.copies.append(Copied(step, donor))

    def _apply_to_run(self, kind: str, trace: Trace, **fields: Any) -> None:
        if kind == "finished":
            trace.is_finished = True
        elif kind == "paused":
            trace.paused_at = fields["step"]
        elif kind == "failed":
            trace.failure = fields["reason"]
        else:
            self.gpu_seconds += fields["gpu_seconds"]
            trace.results[fields["step"]] = fields["metrics"]
            trace.num_steps = fields["num_steps"]
            if fields["stops"]:
                trace.stopped_at = fields["step"]
