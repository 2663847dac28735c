"""The comparison as the page that MLflow opens on."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.reports.comparison import Comparison, headings, relative_time
from pipelines.reports.protocol_tables import ARXIV
from pipelines.reports.summary import remarks, summary_tables
from pipelines.reports.tables import Table, section, to_markdown
from pipelines.tracking.journal import Journal
from vlp.core.markdown import markdown_table


def track_comparison(
    comparison: Comparison, report: Path, journal: Journal, *, runs: Mapping[str, Path]
) -> None:
    """Make a pipeline's own record the page of its comparison: table, numbers of every method, pictures.

    Args:
        report: folder of the report.
        runs: folder of each method's record.
    """
    rows, shown = comparison.rows, headings(comparison.rows)
    for name in ("report.json", "report.md", "report.html"):
        journal.artifact(report / name, folder="report")
    for name in ("report", "masks"):
        journal.image(name, report / f"{name}.png")
    for row in rows:
        numbers = {heading: row.metrics[key] for key, heading in shown.items() if key in row.metrics}
        if (time := relative_time(row, rows)) is not None:
            numbers["relative time"] = time
        # A section per metric, a chart in it per method.
        journal.metrics(
            {f"{name.replace('->', ' to ')}/{row.method}": value for name, value in numbers.items()}
        )
    journal.describe(_description(comparison), runs=runs, columns=[f"val/{key}" for key in shown])


def _description(comparison: Comparison) -> str:
    """The tables with a link to every method, its loss and its papers; in the Markdown of MLflow's page."""
    first, *others = (table.plain() for table in summary_tables(comparison))
    explained = [
        [f"[{row.method}]", row.formula, ", ".join(f"[{n}]({ARXIV}{n})" for n in row.papers)]
        for row in comparison.rows
    ]
    parts = [to_markdown(_naming_runs(first, comparison)), *(section(table, level=3) for table in others)]
    parts.append(markdown_table(["method", "loss; M hidden", "arXiv"], explained))
    about = "\n\n".join([*remarks(comparison), "Pictures and report: among the artifacts. [all runs]"])
    return "\n".join([*parts, about, ""])


def _naming_runs(table: Table, comparison: Comparison) -> Table:
    """Every method in brackets, which MLflow's page has as a link to its run."""
    lines = []
    for line in table.lines:
        first, *cells = line.cells
        if first.text in comparison.methods:
            first = first._replace(text=f"[{first.text}]")
        lines.append(line._replace(cells=[first, *cells]))
    return table._replace(lines=lines)
