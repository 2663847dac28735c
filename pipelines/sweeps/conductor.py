"""What a sweep does next: every decision is a function of its history alone."""

import json
import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pipelines.checkpoints.store import checkpoint_name
from pipelines.sweeps.history import SHARED, History, Run, Setting, Trace
from pipelines.sweeps.samplers import Place
from pipelines.sweeps.schedulers import Member
from pipelines.sweeps.search import Proposal, Tried
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.standings import run_score
from pipelines.sweeps.trial import Stretch, Trials, effect
from pipelines.training.job import CHECKPOINTS
from vlp.core.seeds import mix_seeds

MAX_REPEATS = 50
"""Proposals in a row that come to what was there already, before there is nothing left to try."""


class Known(NamedTuple):
    """What is needed of the run of a setting again and again."""

    num_steps: int
    effect: str


class Conductor:
    """Says which run comes next and which one ends, and keeps the history."""

    def __init__(self, config: SweepConfig, trials: Trials, history: History) -> None:
        self.config, self.trials, self.history = config, trials, history
        self._of_values: dict[str, Known] = {}
        self.base_steps = self._known({}).num_steps
        self.running: set[Run] = set()
        self.tried: set[Run] = set()
        """Runs that were begun by this process."""
        self._heard: dict[Run, float] = {}
        """When each running one began, or was last heard of."""

    def next_run(self) -> Run | Literal["wait"] | None:
        """A run to begin, or to go on with; None where nothing is left to do."""
        ready, later = self._waiting()
        if not ready and self._are_shared_done() and (proposed := self._propose()) is not None:
            ready = [proposed]
        if not ready and later and not self.running and self._exchange():
            ready, later = self._waiting()
        if ready:
            self.running.add(ready[0])
            self.tried.add(ready[0])
            self._heard[ready[0]] = time.monotonic()
            return ready[0]
        return "wait" if self.running and later else None

    def stretch(self, run: Run) -> Stretch:
        """What a process trains of a run."""
        until, kept = self._until(run), list(self._pauses())
        if run.setting == SHARED:
            return Stretch(run, {}, run.key, None, until, kept)
        trace, start = self.history.trace(run), None
        if trace.copies:
            step, donor = trace.copies[-1]
            start = self._checkpoint(self.history.folder_of(Run(donor, 0), at_step=step), step)
        elif self.config.from_step is not None:
            start = self._checkpoint(Run(SHARED, run.seed).key, self.config.from_step)
        values = self.history.settings[run.setting].values
        return Stretch(run, values, self.history.folder_of(run), start, until, kept)

    def needed_folders(self) -> set[str]:
        """Folders of runs that others are still to begin from."""
        open_runs = [run for run in self._all_runs() if self.history.trace(run).is_open]
        starts = {self.stretch(run).start for run in open_runs}
        needed = {start.partition("/")[0] for start in starts if start is not None}
        return needed if self.is_done else needed | {run.key for run in self._shared_runs()}

    def measured(self, run: Run, step: int, metrics: Mapping[str, float]) -> bool:
        """Take in a result; whether the run ends by it."""
        trace = self.history.trace(run)
        if trace.stopped_at is not None:
            return True
        if step in trace.results:  # measured again, behind the checkpoint that it went on from
            return False
        steps = self._num_steps(run)
        missing = [metric for metric in self.config.metrics if metric not in metrics]
        if missing:
            self.failed(run, f"{missing[0]} was not measured")
            return True
        stops = step < self._until(run) and self._stops(run, step, steps, metrics[self.config.main_metric])
        gpu_seconds = self._seconds_since_heard(run) * self.trials.machine.num_gpus
        self.history.report(run, step, metrics, num_steps=steps, stops=stops, gpu_seconds=gpu_seconds)
        return stops

    def ended(self, run: Run) -> None:
        """A run's process has come to its end: it was finished or stopped, it waits for others, or something
        is missing."""
        self.running.discard(run)
        trace = self.history.trace(run)
        if trace.failure is not None or not trace.is_open:
            return
        if trace.last_step < self._until(run):  # another process would come to the same
            self.failed(run, f"it ended, and was last measured after {trace.last_step} steps")
        elif run.setting == SHARED or trace.last_step == trace.num_steps:
            self.history.finish(run)
        else:
            self.history.pause(run)

    def failed(self, run: Run, reason: str) -> None:
        """A run ended by an error."""
        self.running.discard(run)
        self.history.fail(run, reason)

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended, and no other one is to come."""
        ready, later = self._waiting()
        return not (ready or later) and self._next_point() is None

    def failures(self) -> list[str]:
        """Why runs of this process failed."""
        traces = (self.history.trace(run) for run in sorted(self.tried))
        return [trace.failure for trace in traces if trace.failure is not None]

    def num_ended(self) -> int:
        """Runs that need not go on."""
        return sum(not trace.is_open for trace in self.history.trials.values())

    def num_runs(self) -> int:
        """Runs in all, were none stopped before its other seeds have begun."""
        skipped = sum(self._is_skipped(run) for run in self._all_runs())
        to_come = self.config.search.to_come(
            self.config.points,
            self.config.num_trials,
            settings=len(self.history.settings),
            proposals=self.history.num_proposals,
        )
        return len(self._all_runs()) - skipped + to_come * self.config.seeds

    def _known(self, values: dict[str, Any]) -> Known:
        key = json.dumps(values, sort_keys=True)
        if key not in self._of_values:
            config = self.trials.config(values)
            self._of_values[key] = Known(config.num_steps, effect(config))
        return self._of_values[key]

    def _all_runs(self) -> list[Run]:
        """Of the settings that were proposed."""
        seeds = range(self.config.seeds)
        return [Run(number, seed) for number in range(len(self.history.settings)) for seed in seeds]

    def _is_skipped(self, run: Run) -> bool:
        """Whether a setting was stopped by another seed before this one has begun."""
        others = (self.history.trace(Run(run.setting, seed)) for seed in range(self.config.seeds))
        has_begun = bool(self.history.trace(run).results)
        return not has_begun and any(other.stopped_at is not None for other in others)

    def _waiting(self) -> tuple[list[Run], list[Run]]:
        """Runs that may begin, and those that are in progress or have to wait for their setting's first."""
        ready, later = [], []
        for run in [*self._shared_runs(), *self._all_runs()]:
            trace = self.history.trace(run)
            if not trace.is_open or trace.failure is not None or self._is_skipped(run):
                continue
            (later if run in self.running or self._waits(run) else ready).append(run)
        return ready, later

    def _waits(self, run: Run) -> bool:
        """Whether a run waits: for the steps that all share, for others at a pause, or for the first seed of
        its setting, which may yet spare it the others."""
        if run.setting == SHARED:
            return False
        if not self._are_shared_done() or self.history.trace(run).paused_at >= self._until(run):
            return True
        first = self.history.trace(Run(run.setting, 0))
        return self.config.scheduler.may_stop and run.seed > 0 and first.is_open and first.failure is None

    def _shared_runs(self) -> list[Run]:
        """The first steps of all trials, where they are shared."""
        return [] if self.config.from_step is None else [Run(SHARED, n) for n in range(self.config.seeds)]

    def _are_shared_done(self) -> bool:
        return all(self.history.trace(run).is_finished for run in self._shared_runs())

    def _num_steps(self, run: Run) -> int:
        if run.setting == SHARED:
            return self.base_steps
        return self._known(self.history.settings[run.setting].values).num_steps

    def _pauses(self) -> range:
        """Steps after which all trials wait for each other."""
        return self.config.scheduler.pauses(self.base_steps)

    def _until(self, run: Run) -> int:
        """Step up to which a run may go for now."""
        if run.setting == SHARED:
            assert self.config.from_step is not None
            return self.config.from_step
        return self._next_pause() or self._num_steps(run)

    def _next_pause(self) -> int | None:
        return next((step for step in self._pauses() if step > self.history.exchanged_at), None)

    def _exchange(self) -> bool:
        """Have trials go on with each other's weights, where all have come to a pause; whether they do."""
        step = self._next_pause()
        traces = [self.history.trace(run) for run in self._all_runs()]
        if step is None or any(trace.paused_at < step for trace in traces):
            return False
        sign = 1 if self._is_max else -1
        members = [
            Member(setting.point, sign * trace.results[step][self.config.main_metric])
            for setting, trace in zip(self.history.settings, traces, strict=True)
        ]
        points, seed = self.config.points, mix_seeds(self.config.seed, step)
        copies = self.config.scheduler.copies(members, space=points, seed=seed)
        settings = {n: Setting(points.values(copy.point), dict(copy.point)) for n, copy in copies.items()}
        for number, copy in copies.items():
            print(
                f"[sweep] after step {step}: {number:04d} goes on with the weights of {copy.donor:04d} and "
                f"{self.trials.label(settings[number].values)}",
                flush=True,
            )
        self.history.exchange(step, {n: (copy.donor, settings[n]) for n, copy in copies.items()})
        return True

    def _checkpoint(self, folder: str, step: int) -> str:
        """Below the folder of the trials."""
        return f"{folder}/{CHECKPOINTS}/{checkpoint_name(step)}"

    def _seconds_since_heard(self, run: Run) -> float:
        now = time.monotonic()
        former, self._heard[run] = self._heard.get(run, now), now
        return now - former

    def _propose(self) -> Run | None:
        while (point := self._next_point()) is not None:
            values = self.config.points.values(point)
            tried = {self._known(setting.values).effect for setting in self.history.settings}
            if self._known(values).effect not in tried:
                self.history.propose(Setting(values, point))
                return Run(len(self.history.settings) - 1, 0)
            if all(setting.values != values for setting in self.history.settings):
                print(f"[sweep] {self.trials.label(values)} comes to what is tried already", flush=True)
            self.history.repeat()
        return None

    def _next_point(self) -> dict[str, Place] | None:
        """Where the search looks next; None where it has looked enough, or everywhere."""
        history, config = self.history, self.config
        is_enough = len(history.settings) >= config.total_settings
        if self._is_late() or is_enough or history.num_repeats >= MAX_REPEATS:
            return None
        return config.search.propose(
            Proposal(
                space=config.points,
                tried=[self._tried(number) for number in range(len(history.settings))],
                directions=list(config.metrics.values()),
                number=history.num_proposals,
                seed=mix_seeds(config.seed, history.num_proposals),
            )
        )

    def _is_late(self) -> bool:
        """Whether the hours that it may take have passed."""
        used = {"max_hours": self.history.seconds, "max_gpu_hours": self.history.gpu_seconds}
        limits = {"max_hours": self.config.max_hours, "max_gpu_hours": self.config.max_gpu_hours}
        return any(limit is not None and used[key] >= limit * 3600 for key, limit in limits.items())

    def _tried(self, number: int) -> Tried:
        """A setting as a search sees it."""
        traces = [self.history.trace(Run(number, seed)) for seed in range(self.config.seeds)]
        ended = [trace for trace in traces if trace.is_finished]
        scores = None
        if ended and len(ended) == len(traces):
            scores = [self._mean(ended, metric) for metric in self.config.metrics]
        is_open = scores is None and not any(trace.stopped_at is not None for trace in traces)
        curve = {step: of[self.config.main_metric] for step, of in traces[0].results.items()}
        return Tried(self.history.settings[number].point, scores, curve, is_open)

    def _mean(self, traces: list[Trace], metric: str) -> float:
        scores = [run_score(trace, metric, self.config) for trace in traces]
        return sum(score for score in scores if score is not None) / len(traces)

    def _stops(self, run: Run, step: int, steps: int, score: float) -> bool:
        """Compared with the runs of its seed."""
        if run.setting == SHARED:
            return False
        others = [
            self._curve(trace)
            for other, trace in self.history.trials.items()
            if other.seed == run.seed and other != run and trace.results
        ]
        own = dict(self._curve(self.history.trace(run)))
        own[self._at_same_cost(step, steps)] = score if self._is_max else -score
        return self.config.scheduler.stops(own, others)

    @property
    def _is_max(self) -> bool:
        return self.config.metrics[self.config.main_metric] == "max"

    def _curve(self, trace: Trace) -> Mapping[float, float]:
        sign = 1 if self._is_max else -1
        return {
            self._at_same_cost(step, trace.num_steps): sign * of[self.config.main_metric]
            for step, of in trace.results.items()
        }

    def _at_same_cost(self, step: int, steps: int) -> float:
        """The step of the sweep's run at the same share of the cost."""
        return step * self.base_steps / steps
