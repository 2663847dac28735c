"""Methods side by side: of what was measured, every number that a report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.config.errors import ConfigError, UserError, nearest
from pipelines.reports.measured import Measured
from vlp.evaluation import EVALUATIONS, Evaluation
from vlp.metrics.confusion import Confusion
from vlp.metrics.group_means import GroupMean, group_means
from vlp.metrics.intervals import Difference, Interval, named_seed_differences, named_seed_means


@dataclass(frozen=True)
class Row:
    """One method of the table."""

    method: str
    objective: str
    mask: str
    metrics: dict[str, float]
    training_seconds: float | None
    """Steps times the time of one, measured in turn with the other methods'; 0 of a network that was not
    trained, None where no steps were timed."""
    formula: str = ""
    """What is learned; and M, what is hidden."""
    papers: tuple[str, ...] = ()
    """Numbers on arXiv."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Of metrics; each holds 95 % of what other images would have given."""
    differences: dict[str, Difference] = field(default_factory=dict)
    """Of metrics, from the baseline's on the same items."""
    groups: dict[str, GroupMean] = field(default_factory=dict)
    """Means over the sets of a suite's groups, by `group/protocol`."""
    spreads: dict[str, float] = field(default_factory=dict)
    """Of metrics, their standard deviation over the seeds; none of a single one."""
    seeds: tuple[int, ...] = ()
    """By which it was trained."""
    origin: str = ""
    """Where it was found; times are of those of one origin."""
    link: str = ""
    """Address of its page."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a report shows."""

    name: str
    """Of the pipeline."""
    rows: Sequence[Row]
    chance: Mapping[str, float]
    """What guessing gives, by `set/metric`; of the metrics for which it is known."""
    baseline: str | None = None
    """The method that the others' differences are from; None for no differences."""
    seeds: int = 1
    """By how many seeds every method was trained, or most of them."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Set -> names of its classes."""
    confusions: Mapping[str, Mapping[str, Confusion]] = field(default_factory=dict)
    """`set/protocol` -> method -> which classes it takes for which, by its first seed."""

    @property
    def methods(self) -> list[str]:
        """Their names, in the order of the rows."""
        return [row.method for row in self.rows]


def compare(name: str, measured: Sequence[Measured], *, baseline: str | None) -> Comparison:
    """What was measured, side by side.

    Args:
        name: of the report.
        measured: by method and seed; those of one method are one row.
        baseline: method that the others' differences are from; None for no differences.

    Raises:
        ConfigError: no method is called as the baseline.
        UserError: a set is another one for other methods.
    """
    methods: dict[str, dict[int, Measured]] = {}
    for one in measured:
        methods.setdefault(one.method, {})[one.model.seed] = one
    if baseline is not None and baseline not in methods:
        raise ConfigError(f"baseline: no method is called {baseline}{nearest(baseline, methods)}")
    groups = {group: sets for one in measured for group, sets in one.groups.items()}
    rows = [
        _row(own, {} if baseline in (None, method) else methods[baseline], groups=groups)
        for method, own in methods.items()
    ]
    return Comparison(
        name=name,
        rows=rows,
        chance={key: value for one in measured for key, value in one.chance.items()},
        baseline=baseline,
        seeds=max((len(own) for own in methods.values()), default=1),
        classes={data: names for one in measured for data, names in one.classes.items()},
        confusions=_confusions({method: next(iter(own.values())) for method, own in methods.items()}),
    )


def _row(
    own: Mapping[int, Measured],
    others: Mapping[int, Measured],
    *,
    groups: Mapping[str, Mapping[str, str]],
) -> Row:
    """A method by its seeds, beside the baseline by its own."""
    first, runs = next(iter(own.values())), [one.outcomes for one in own.values()]
    means = named_seed_means(runs)
    metrics = {key: one.value for key, one in means.items()}
    intervals = {key: Interval(one.low, one.high) for key, one in means.items()}
    return Row(
        method=first.method,
        objective=first.model.objective,
        mask=first.model.mask,
        metrics=metrics,
        training_seconds=first.seconds,
        formula=first.model.formula,
        papers=first.model.papers,
        intervals=intervals,
        differences=_differences(own, others),
        groups=group_means(metrics, intervals, groups=groups),
        spreads={key: one.spread for key, one in means.items()} if len(runs) > 1 else {},
        seeds=tuple(own),
        origin=first.origin,
        link=first.link,
    )


def _differences(own: Mapping[int, Measured], others: Mapping[int, Measured]) -> dict[str, Difference]:
    """From the baseline, by the seeds that both have."""
    seeds = [seed for seed in own if seed in others]
    if not seeds:
        return {}
    ours, theirs = ([runs[seed].outcomes for seed in seeds] for runs in (own, others))
    try:
        return named_seed_differences(ours, theirs)
    except ValueError as error:
        one, other = own[seeds[0]], others[seeds[0]]
        raise UserError(
            f"{one.method} and {other.method} were measured on different sets of one name: {error}; "
            "measure both on the same, or report them apart"
        ) from error


def _confusions(firsts: Mapping[str, Measured]) -> dict[str, dict[str, Confusion]]:
    found: dict[str, dict[str, Confusion]] = {}
    for method, one in firsts.items():
        for key, outcomes in one.outcomes.items():
            if (matrix := outcomes.confusion()) is not None:
                found.setdefault(key, {})[method] = matrix
    return found


def relative_time(row: Row, rows: Sequence[Row]) -> float | None:
    """Training time in that of the first row that was trained and whose steps were timed beside its own."""
    beside = [
        first.training_seconds for first in rows if first.origin == row.origin and first.training_seconds
    ]
    return None if row.training_seconds is None else row.training_seconds / (beside[0] if beside else 1)


def protocols() -> list[type[Evaluation]]:
    """In the order of a report: those of what images and texts share, then of what images give alone."""
    return sorted(EVALUATIONS.values(), key=lambda protocol: not protocol.needs_text)


def metrics_by_set(rows: Sequence[Row]) -> dict[str, dict[str, None]]:
    """Set -> the metrics of it that any row has, in their order."""
    sets: dict[str, dict[str, None]] = {}
    for name, _, metric in (key.partition("/") for row in rows for key in row.metrics):
        sets.setdefault(name, {})[metric] = None
    return sets


def headings(rows: Sequence[Row]) -> dict[str, str]:
    """Metrics that one table of everything shows, with their headings; a set that is the only one is not
    named."""
    sets = metrics_by_set(rows)
    found = {}
    for name, metrics in sets.items():
        prefix = f"{name} " if len(sets) > 1 else ""
        for protocol in protocols():
            columns = protocol.columns(metrics).items()
            found |= {f"{name}/{metric}": f"{prefix}{heading}" for metric, heading in columns}
    return found
