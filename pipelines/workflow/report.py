"""The runs of a pipeline side by side: method x metrics x relative time."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipelines.checkpoints.store import RunManifest
from pipelines.config.identity import fingerprint
from pipelines.evaluation.evaluate import EvaluationManifest
from pipelines.tracking.journal import Journal
from pipelines.workflow.stages import Done
from vlp.core.markdown import markdown_table
from vlp.evaluation import EVALUATIONS
from vlp.pictures.curves import metric_bars
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
    """Steps times the median time of one: independent of pauses and restarts."""

    @classmethod
    def of(cls, run: RunConfig, trained: Done[RunManifest], measured: Done[EvaluationManifest]) -> "Row":
        """The row of a run that was trained and measured."""
        times = [
            record.fields["metrics"]["train/batch_time"]
            for record in trained.journal.read()
            if record.kind == "metrics" and "train/batch_time" in record.fields["metrics"]
        ]
        seconds = trained.manifest.steps * median(times) if times else 0.0
        return cls(run.name, run.objective.name, run.mask.name, measured.manifest.metrics, seconds)


def relative_time(row: Row, rows: Sequence[Row]) -> float:
    """Training time in that of the first row that was trained."""
    return row.training_seconds / next(
        (first.training_seconds for first in rows if first.training_seconds), 1
    )


@dataclass(frozen=True, kw_only=True)
class ReportManifest(Manifest):
    """The manifest of a report."""


def write_report(
    rows: Sequence[Row], masks: Image.Image, output: Path, *, journal: Journal
) -> ReportManifest:
    """Write the table as JSON, Markdown and a picture, and the methods' masks; returns a manifest."""
    headings = _headings(rows)
    masks.save(output / "masks.png")
    (output / "report.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    (output / "report.md").write_text(_markdown(rows))
    charts = {
        row.method: {heading: row.metrics[key] for key, heading in headings.items() if key in row.metrics}
        for row in rows
    }
    metric_bars(charts).save(output / "report.png")
    for name in ("report.json", "report.md", "report.png", "masks.png"):
        journal.artifact(output / name, folder="report")
    for row in rows:
        journal.metrics({f"{row.method}/{key}": value for key, value in row.metrics.items()})
        journal.metrics({f"{row.method}/relative_time": relative_time(row, rows)})
    manifest = ReportManifest(digest=fingerprint([asdict(row) for row in rows]))
    manifest.write(output)
    return manifest


def print_table(rows: Sequence[Row]) -> None:
    """Show the table on the terminal."""
    header, *body = _cells(rows)
    table = Table(title="Method x metrics x relative training time", box=SIMPLE_HEAD)
    for heading in header:
        table.add_column(heading.replace(" ", "\n", 1), no_wrap=True)
    for cells in body:
        table.add_row(*cells)
    widest = Console(width=1000).measure(table).maximum
    Console(width=max(widest, Console().width)).print(table)


def _markdown(rows: Sequence[Row]) -> str:
    header, *body = _cells(rows)
    return markdown_table(header, body)


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    shown = _headings(rows)
    header = ["method", "objective", "mask", *shown.values(), "time"]
    body = []
    for row in rows:
        numbers = [f"{row.metrics[key]:.1%}" if key in row.metrics else "-" for key in shown]
        relative = f"{relative_time(row, rows):.2f}x"
        body.append([row.method, row.objective, row.mask, *numbers, relative])
    return [header, *body]


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
