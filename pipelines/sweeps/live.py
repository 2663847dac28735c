"""What a sweep says while trials run: a line for each result."""

import time

from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import SHARED, Run
from pipelines.sweeps.standings import best_of, standings


class Live:
    """Knows the pace of this process, for the time left."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self.start = time.monotonic()
        self.steps_before = self._steps_done()

    def show(self, run: Run) -> None:
        """Say a run's last result, the best so far and the time left."""
        conductor, config = self.conductor, self.conductor.config
        trace = conductor.history.trace(run)
        setting = self._name(run)
        metric = config.main_metric
        said = "no score"
        if trace.results:
            said = f"step {trace.last_step}, {metric} {trace.results[trace.last_step][metric]:.4f}"
        if trace.stopped_at is not None:
            said += ", stopped"
        seed = f" seed+{run.seed}" if run.seed else ""
        print(
            f"[sweep] {conductor.num_ended()}/{conductor.num_runs()} trials done; {setting}{seed}: {said}"
            f"{self._best()}{self._time_left()}",
            flush=True,
        )

    def _name(self, run: Run) -> str:
        """What a run tries."""
        if run.setting == SHARED:
            return f"the first {self.conductor.config.from_step} steps"
        return self.conductor.trials.label(self.conductor.history.settings[run.setting].values)

    def _best(self) -> str:
        conductor = self.conductor
        best = best_of(standings(conductor.history, conductor.config), conductor.config)
        if best is None:
            return ""
        setting = conductor.trials.label(conductor.history.settings[best.number].values)
        score = best.scores[conductor.config.main_metric]
        spread = "" if score.spread is None else f" ± {score.spread:.4f}"
        return f"; best so far {score.mean:.4f}{spread} ({setting})"

    def _time_left(self) -> str:
        """Were no trial stopped early."""
        done = self._steps_done()
        if done <= self.steps_before:
            return ""
        seconds = (time.monotonic() - self.start) / (done - self.steps_before)
        to_do = self.conductor.num_runs() * self.conductor.base_steps - done
        return f"; {_duration(max(0.0, to_do * seconds))} left"

    def _steps_done(self) -> int:
        """Steps that need not be trained any more, those included that stopped trials were spared."""
        traces = self.conductor.history.trials.values()
        return sum(trace.last_step if trace.is_open else self.conductor.base_steps for trace in traces)


def overhead_text(seconds: float, *, worked: float, at_once: int) -> str:
    """How long a sweep took beside the work of its trials.

    Args:
        seconds: from its start to its end.
        worked: by its trials, all together.
        at_once: trials that there is room for.
    """
    least = worked / at_once
    return (
        f"took {_duration(seconds)}, {seconds / least:.2f} times the {_duration(least)} that its trials "
        f"worked, {at_once} at once"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
