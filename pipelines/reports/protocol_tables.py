"""A table of each protocol, laid out as the papers', with their numbers below ours."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from pipelines.reports.comparison import Comparison, Row, metrics_by_set, protocols
from pipelines.reports.papers import PaperRow, paper_rows
from pipelines.reports.summary import chance_line, mean_cell, number_cell, time_text
from pipelines.reports.tables import Cell, Heading, Line, Table
from vlp.evaluation import Evaluation
from vlp.metrics.group_means import group_means

ARXIV = "https://arxiv.org/abs/"


class Columns(NamedTuple):
    """Of the table of a protocol."""

    headings: Mapping[str, Heading]
    """By `set/metric`."""
    averaged: Mapping[str, str]
    """Set -> the last part of the name of its number, of those that a last column is the mean of."""
    protocol: str
    """What is between both in the names of these metrics."""


def protocol_tables(comparison: Comparison) -> list[Table]:
    """One for each protocol by which any method was measured, and one of the relative time."""
    found = [_table(comparison, columns, title) for title, columns in _columns(comparison.rows).items()]
    return [*found, *_times(comparison)]


def _columns(rows: Sequence[Row]) -> dict[str, Columns]:
    """By the title of a table."""
    found = {}
    for protocol in protocols():
        shown = {
            f"{name}/{metric}": Heading(heading, name)
            for name, metrics in metrics_by_set(rows).items()
            for metric, heading in protocol.details(metrics).items()
        }
        if shown:
            found[protocol.title or protocol.name.replace("_", " ")] = _averaged(protocol, shown)
    return found


def _averaged(protocol: type[Evaluation[Any]], shown: Mapping[str, Heading]) -> Columns:
    """With the mean of the sets that have the number of a protocol, if several have."""
    prefix, _, number = protocol.averaged.rpartition("/")
    sets = {key.partition("/")[0]: number for key in shown if key.partition("/")[2] == protocol.averaged}
    return Columns(shown, sets if len(sets) > 1 else {}, prefix)


def _table(comparison: Comparison, columns: Columns, title: str) -> Table:
    keys = list(columns.headings)
    lines = [
        Line(
            [
                Cell(row.method, row.link),
                *(number_cell(row, key) for key in keys),
                *_mean_of_ours(row, columns),
            ]
        )
        for row in comparison.rows
        if any(key in row.metrics for key in keys)
    ]
    if any(key in comparison.chance for key in keys):
        lines.append(chance_line(comparison, keys, before=0, after=bool(columns.averaged)))
    papers = [row for row in paper_rows() if any(key in row.metrics for key in keys)]
    lines += [_paper_line(row, columns) for row in papers]
    header = [Heading("method"), *columns.headings.values()]
    if columns.averaged:
        header.append(Heading(f"mean of {len(columns.averaged)}"))
    return Table(title, header, lines, _sources(papers))


def _mean_of_ours(row: Row, columns: Columns) -> list[Cell]:
    if not columns.averaged:
        return []
    found = group_means(row.metrics, row.intervals, groups={"mean": columns.averaged})
    one = found.get(f"mean/{columns.protocol}")
    return [Cell("-") if one is None or one.missing else mean_cell(one, row.link)]


def _paper_line(row: PaperRow, columns: Columns) -> Line:
    numbers = [row.metrics.get(key) for key in columns.headings]
    if columns.averaged:
        own = [row.metrics.get(f"{s}/{columns.protocol}/{n}") for s, n in columns.averaged.items()]
        known = [value for value in own if value is not None]
        numbers.append(mean(known) if len(known) == len(own) else None)
    texts = ["-" if value is None else f"{value:.1%}" for value in numbers]
    return Line([_paper_name(row), *(Cell(text) for text in texts)], "paper")


def _paper_name(row: PaperRow) -> Cell:
    return Cell(f"{row.name} [{row.table.paper}]", f"{ARXIV}{row.table.paper}", row.table.about)


def _sources(papers: Sequence[PaperRow]) -> list[str]:
    tables = {(row.table.paper, row.table.about, row.table.source) for row in papers}
    return [f"arXiv:{paper}: {about}; {source}" for paper, about, source in sorted(tables)]


def _times(comparison: Comparison) -> list[Table]:
    """Ours, where any method was trained, and the papers'."""
    rows = [row for row in comparison.rows if row.training_seconds]
    if not rows:
        return []
    lines = [Line([Cell(row.method, row.link), Cell(time_text(row, comparison.rows))]) for row in rows]
    papers = [row for row in paper_rows() if row.time is not None]
    lines += [Line([_paper_name(row), Cell(f"{row.time:.2f}x")], "paper") for row in papers]
    return [Table("Relative time", [Heading("method"), Heading("time")], lines, _sources(papers))]
