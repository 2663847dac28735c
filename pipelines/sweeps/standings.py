"""Who is ahead in a sweep: scores of settings over their seeds, the best one, the Pareto front."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import NamedTuple

from pipelines.sweeps.history import History, Run, Trace
from pipelines.sweeps.settings import SweepConfig


class Score(NamedTuple):
    """One metric of one setting."""

    mean: float
    """Over its seeds."""
    spread: float | None
    """Standard deviation over its seeds; None for a single one."""


@dataclass(frozen=True)
class Standing:
    """How a setting stands."""

    number: int
    """Of the setting."""
    scores: Mapping[str, Score]
    """By metric, over the seeds that have been trained to the end, or so far."""
    num_ended: int
    """Seeds by which it was trained to the end."""
    state: str
    """`done`, or why its scores are not those of whole trainings."""

    @property
    def is_done(self) -> bool:
        """Whether it was trained to the end by every seed; nothing else can win."""
        return self.state == "done"


def standings(history: History, config: SweepConfig) -> list[Standing]:
    """Every setting, the best first; those that are not trained to the end come last."""
    found = [_standing(number, history, config) for number in range(len(history.settings))]
    return sorted(found, key=lambda one: (not one.is_done, _order(one, config)))


def best_of(found: Sequence[Standing], config: SweepConfig) -> Standing | None:
    """The best setting of those that are done, by the first metric; None where none is."""
    done = [one for one in found if one.is_done]
    return min(done, key=lambda one: _order(one, config)) if done else None


def front(found: Iterable[Standing], config: SweepConfig) -> list[Standing]:
    """The Pareto front: settings that were trained to the end, and that no other one dominates."""
    done = [one for one in found if one.is_done]
    return [one for one in done if not any(_dominates(other, one, config) for other in done)]


def run_score(trace: Trace, metric: str, config: SweepConfig) -> float | None:
    """A metric of a run, of the step that the sweep asks for; None where it has none."""
    curve = {step: of[metric] for step, of in sorted(trace.results.items()) if metric in of}
    if not curve:
        return None
    if isinstance(config.score, int):
        return curve.get(config.score)
    if config.score == "best":
        return max(curve.values()) if config.metrics[metric] == "max" else min(curve.values())
    return curve[max(curve)]


def score_step(trace: Trace, metric: str, config: SweepConfig) -> int:
    """The step that a score is of."""
    score = run_score(trace, metric, config)
    steps = [step for step, of in trace.results.items() if of.get(metric) == score]
    return max(steps, default=0) if config.score == "last" else min(steps, default=0)


def score_text(config: SweepConfig) -> str:
    """Which step the scores are of, in words."""
    if isinstance(config.score, int):
        return f"after {config.score} steps"
    return "after the last step" if config.score == "last" else "after the best step of each trial"


def _standing(number: int, history: History, config: SweepConfig) -> Standing:
    traces = [history.trace(Run(number, seed)) for seed in range(config.seeds)]
    ended = [trace for trace in traces if trace.is_finished]
    shown = ended or [trace for trace in traces if trace.results]
    scores = {}
    for metric in config.metrics:
        values = [score for trace in shown if (score := run_score(trace, metric, config)) is not None]
        if values:
            scores[metric] = Score(mean(values), stdev(values) if len(values) > 1 else None)
    state = _state(traces)
    if state == "done" and len(scores) < len(config.metrics):
        state = "not measured"
    return Standing(number, scores, len(ended), state)


def _state(traces: Sequence[Trace]) -> str:
    if all(trace.is_finished for trace in traces):
        return "done"
    for trace in traces:
        if trace.failure is not None:
            return "failed"
        if trace.stopped_at is not None:
            return f"stopped at {trace.stopped_at}"
    return f"step {max(trace.last_step for trace in traces)}"


def _order(one: Standing, config: SweepConfig) -> float:
    """The smaller, the better; a setting without a score is the worst, and so is one that is not finite."""
    score = one.scores.get(config.main_metric)
    if score is None or score.mean != score.mean:
        return float("inf")
    return -score.mean if config.metrics[config.main_metric] == "max" else score.mean


def _dominates(one: Standing, other: Standing, config: SweepConfig) -> bool:
    differences = [
        (one.scores[metric].mean - other.scores[metric].mean) * (1 if way == "max" else -1)
        for metric, way in config.metrics.items()
    ]
    return all(difference >= 0 for difference in differences) and any(differences)
