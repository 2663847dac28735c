"""The runs of a pipeline side by side: method x metrics x relative time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipelines.config.identity import fingerprint
from pipelines.tracking.journal import Journal
from vlp.core.markdown import markdown_table
from vlp.evaluation import EVALUATIONS
from vlp.metrics.group_means import GroupMean, group_means
from vlp.metrics.intervals import Difference, Interval, named_seed_differences, named_seed_means
from vlp.metrics.outcomes import Outcomes
from vlp.pictures.curves import Bars, bar_charts
from vlp.run import RunConfig
from vlp.shards.manifest import Manifest


@dataclass(frozen=True)
class Row:
    """One method of the table."""

    method: str
    objective: str
    mask: str
    metrics: dict[str, float]
    training_seconds: float
    """Steps times the time of one, measured in turn with the other methods'; 0 of a network that was not
    trained."""
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


def compare(
    methods: Mapping[str, Sequence[Mapping[str, Outcomes]]],
    *,
    runs: Sequence[RunConfig],
    baseline: str | None,
    groups: Mapping[str, Mapping[str, str]],
    training_seconds: Sequence[float],
) -> list[Row]:
    """The rows of methods that were measured.

    Args:
        methods: what became of single items, by each seed that a method was trained by.
        runs: of the methods, by their first seed.
        baseline: method that the others' differences are from; None for no differences.
        groups: group of sets -> set -> the number that counts of it.
        training_seconds: of each method, by one seed.
    """
    rows = []
    for run, seconds in zip(runs, training_seconds, strict=True):
        objective, mask, outcomes = run.objective, run.mask, methods[run.name]
        means = named_seed_means(outcomes)
        metrics = {key: one.value for key, one in means.items()}
        intervals = {key: Interval(one.low, one.high) for key, one in means.items()}
        others = None if baseline is None or baseline == run.name else methods[baseline]
        rows.append(
            Row(
                method=run.name,
                objective=objective.name,
                mask=mask.name,
                metrics=metrics,
                formula="; ".join(formula for formula in (objective.formula, mask.formula) if formula),
                papers=tuple(dict.fromkeys(paper for paper in (objective.paper, mask.paper) if paper)),
                training_seconds=seconds,
                intervals=intervals,
                differences={} if others is None else named_seed_differences(outcomes, others),
                groups=group_means(metrics, intervals, groups=groups),
                spreads={key: one.spread for key, one in means.items()} if len(outcomes) > 1 else {},
            )
        )
    return rows


def relative_time(row: Row, rows: Sequence[Row]) -> float:
    """Training time in that of the first row that was trained."""
    return row.training_seconds / next(
        (first.training_seconds for first in rows if first.training_seconds), 1
    )


@dataclass(frozen=True, kw_only=True)
class ReportManifest(Manifest):
    """The manifest of a report."""


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
    """By how many seeds every method was trained."""


def write_report(comparison: Comparison, masks: Image.Image, output: Path) -> ReportManifest:
    """Write the table as JSON, Markdown and a picture, and the methods' masks; returns a manifest."""
    rows = comparison.rows
    masks.save(output / "masks.png")
    (output / "report.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (output / "report.md").write_text(report_markdown(comparison))
    title = f"{comparison.name}: methods side by side"
    bar_charts(_charts(comparison), [row.method for row in rows], title=title).save(output / "report.png")
    manifest = ReportManifest(digest=fingerprint([asdict(row) for row in rows]))
    manifest.write(output)
    return manifest


def track_comparison(
    comparison: Comparison, report: Path, journal: Journal, *, runs: Mapping[str, Path]
) -> None:
    """Make a pipeline's own record the page of its comparison: table, numbers of every method, pictures.

    Args:
        report: folder of the report.
        runs: folder of each method's record.
    """
    rows, headings = comparison.rows, _headings(comparison.rows)
    for name in ("report.json", "report.md"):
        journal.artifact(report / name, folder="report")
    for name in ("report", "masks"):
        journal.image(name, report / f"{name}.png")
    for row in rows:
        shown = {heading: row.metrics[key] for key, heading in headings.items() if key in row.metrics}
        shown |= {"relative time": relative_time(row, rows)}
        # A section per metric, a chart in it per method.
        journal.metrics(
            {f"{name.replace('->', ' to ')}/{row.method}": value for name, value in shown.items()}
        )
    journal.describe(_description(comparison), runs=runs, columns=[f"val/{key}" for key in headings])


def _description(comparison: Comparison) -> str:
    """The table with a link to every method, its loss and its papers; in the Markdown of MLflow's page."""
    header, *body = _cells(comparison.rows)
    if comparison.chance:
        body.append(_chance_cells(comparison))
    methods = {row.method for row in comparison.rows}
    linked = [[f"[{name}]" if name in methods else name, *cells] for name, *cells in body]

    explained = [
        [f"[{row.method}]", row.formula, ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in row.papers)]
        for row in comparison.rows
    ]
    tables = [markdown_table(header, linked)]
    if comparison.baseline is not None:
        header, *body = _difference_cells(comparison)
        tables.append(f"Differences from {comparison.baseline}:\n\n{markdown_table(header, body)}")
    tables += _group_tables(comparison.rows)
    tables.append(markdown_table(["method", "loss; M hidden", "arXiv"], explained))
    about = "\n\n".join([*_remarks(comparison), "Pictures and report: among the artifacts. [all runs]"])
    return "\n".join([*tables, about, ""])


def _charts(comparison: Comparison) -> list[Bars]:
    """One for every column of the table."""
    rows = comparison.rows
    charts = [
        Bars(
            heading,
            {row.method: row.metrics[key] for row in rows if key in row.metrics},
            chance=comparison.chance.get(key),
            intervals={row.method: row.intervals[key] for row in rows if key in row.intervals},
        )
        for key, heading in _headings(rows).items()
    ]
    times = {row.method: relative_time(row, rows) for row in rows}
    return [*charts, Bars("training time", times, "{:.2f}x")]


def print_table(comparison: Comparison) -> None:
    """Show the table on the terminal, and that of the differences from the baseline."""
    _print("Method x metrics x relative training time", _cells(comparison.rows))
    if any(row.groups for row in comparison.rows):
        _print("Means of groups of sets", _group_cells(comparison.rows))
    if comparison.baseline is not None:
        _print(f"Differences from {comparison.baseline}", _difference_cells(comparison))
    for line in _remarks(comparison):
        print(line)


def _print(title: str, cells: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, box=SIMPLE_HEAD)
    for heading in cells[0]:
        table.add_column(heading.replace(" ", "\n", 1), no_wrap=True)
    for line in cells[1:]:
        table.add_row(*line)
    widest = Console(width=1000).measure(table).maximum
    Console(width=max(widest, Console().width)).print(table)


def report_markdown(comparison: Comparison) -> str:
    """The table, with what guessing gives, the differences from the baseline, and what all of it means."""
    header, *body = _cells(comparison.rows)
    if comparison.chance:
        body.append(_chance_cells(comparison))
    parts = [markdown_table(header, body)]
    if comparison.baseline is not None:
        header, *body = _difference_cells(comparison)
        parts.append(f"Differences from {comparison.baseline}:\n\n{markdown_table(header, body)}")
    parts += _group_tables(comparison.rows)
    return "\n".join([*parts, "\n\n".join(_remarks(comparison)) + "\n"])


def _remarks(comparison: Comparison) -> list[str]:
    """What the numbers mean, a line for each kind."""
    lines = []
    if any(row.intervals for row in comparison.rows):
        over = "other images" if comparison.seeds == 1 else "other images and other seeds"
        lines.append(
            f"±: the farther end of the 95 % interval over {over}, in points; report.json has both ends"
        )
    if comparison.baseline is not None:
        paired = "by image" if comparison.seeds == 1 else "by image and seed"
        lines.append(
            f"*: stands out of its noise: the 95 % interval of the difference, paired {paired}, leaves 0 out"
        )
    if comparison.seeds > 1:
        lines.append(f"numbers are means over {comparison.seeds} seeds; report.json has their spread")
    return [*lines, _about_time(comparison.rows)]


def _chance_cells(comparison: Comparison) -> list[str]:
    shown = _headings(comparison.rows)
    guesses = [f"{comparison.chance[key]:.1%}" if key in comparison.chance else "-" for key in shown]
    return ["(chance)", "-", "-", *guesses, "-"]


def _about_time(rows: Sequence[Row]) -> str:
    """What the last column is."""
    first = next((row.method for row in rows if row.training_seconds), "")
    if not first:
        return "time: no method was trained"
    return f"time: steps x seconds per step, in those of {first}; steps measured in turn on one worker"


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    shown = _headings(rows)
    header = ["method", "objective", "mask", *shown.values(), "time"]
    body = []
    for row in rows:
        numbers = [_cell(row, key) for key in shown]
        relative = f"{relative_time(row, rows):.2f}x"
        body.append([row.method, row.objective, row.mask, *numbers, relative])
    return [header, *body]


def _cell(row: Row, key: str) -> str:
    """A number, with the half-width of its interval: brackets would take twice the room of a terminal."""
    if key not in row.metrics:
        return "-"
    value = row.metrics[key]
    return f"{value:.1%}{_noise(value, row.intervals[key]) if key in row.intervals else ''}"


def _noise(value: float, interval: Interval) -> str:
    """The farther end of an interval, in points; exact intervals are not symmetric."""
    return f" ±{100 * max(value - interval.low, interval.high - value):.1f}"


def _difference_cells(comparison: Comparison) -> list[list[str]]:
    shown = _headings(comparison.rows)
    others = [row for row in comparison.rows if row.method != comparison.baseline]
    return [
        ["method", *shown.values()],
        *([row.method, *(_difference_cell(row.differences.get(key)) for key in shown)] for row in others),
    ]


def _group_tables(rows: Sequence[Row]) -> list[str]:
    """The means of groups; none without a suite."""
    if not any(row.groups for row in rows):
        return []
    header, *body = _group_cells(rows)
    return [f"Means of groups of sets:\n\n{markdown_table(header, body)}"]


def _group_cells(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each mean, as it is over other sets for other methods where these cannot be measured so."""
    header = ["group", "protocol", "method", "mean", "over", "lacks"]
    keys = dict.fromkeys(key for row in rows for key in row.groups)
    found = [(key, row.method, row.groups[key]) for key in keys for row in rows if key in row.groups]
    body = []
    for key, method, one in found:
        group, _, protocol = key.partition("/")
        number = f"{one.value:.1%}{_noise(one.value, Interval(one.low, one.high))}"
        body.append([group, protocol, method, number, ", ".join(one.over), ", ".join(one.missing) or "-"])
    return [header, *body]


def _difference_cell(one: Difference | None) -> str:
    if one is None:
        return "-"
    mark = "*" if one.stands_out else ""
    return f"{100 * one.value:+.1f}{_noise(one.value, Interval(one.low, one.high))}{mark}"


def _headings(rows: Sequence[Row]) -> dict[str, str]:
    """Metrics that the table shows, with their headings; a set that is the only one is not named."""
    sets: dict[str, dict[str, None]] = {}
    for name, _, metric in (key.partition("/") for row in rows for key in row.metrics):
        sets.setdefault(name, {})[metric] = None
    # What images and texts share, then what images give alone.
    protocols = sorted(EVALUATIONS.values(), key=lambda protocol: not protocol.needs_text)
    headings = {}
    for name, metrics in sets.items():
        prefix = f"{name} " if len(sets) > 1 else ""
        for protocol in protocols:
            columns = protocol.columns(metrics).items()
            headings |= {f"{name}/{metric}": f"{prefix}{heading}" for metric, heading in columns}
    return headings
