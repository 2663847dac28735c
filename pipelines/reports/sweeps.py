"""What sweeps found as tables of ablations, with the papers' of the same settings below."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.errors import UserError
from pipelines.config.settings import read_yaml
from pipelines.reports.papers import PaperTable, paper_tables, rows_of
from pipelines.reports.protocol_tables import ARXIV
from pipelines.reports.tables import Cell, Heading, Line, Table

REPORT, SETTINGS = "report.json", "sweep.json"
"""In the folder of a sweep: its settings side by side; what makes it one."""


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / SETTINGS).is_file()


def ablation_tables(folder: Path) -> list[Table]:
    """What a sweep found, and what papers report of the settings that it searched.

    Raises:
        UserError: it has not ended, or its table is broken.
    """
    try:
        found = json.loads((folder / REPORT).read_text())
        axes = list(dict.fromkeys(key for one in found for key in one["setting"]))
        table = _table(folder, axes, found)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: the sweep has not ended; `vlp sweep` goes on with it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / REPORT} is broken; `vlp sweep` writes it again") from error
    objective = _objective(folder)
    papers = [one for one in paper_tables() if one.axis in axes and objective in ("", one.objective)]
    return [table, *map(_paper_table, papers)]


def _objective(folder: Path) -> str:
    """Of the runs of a sweep; "" where none of them is the best."""
    best = next(iter(sorted(folder.glob("best*.yaml"))), None)
    return "" if best is None else read_yaml(best)["objective"]["name"]


def _table(folder: Path, axes: Sequence[str], found: Sequence[Mapping[str, Any]]) -> Table:
    metrics = list(dict.fromkeys(key for one in found for key in one["scores"]))
    header = [*axes, *metrics, "state"]
    lines = []
    for one in found:
        setting, scores = one["setting"], one["scores"]
        shown = [_text(setting[key]) if key in setting else "-" for key in axes]
        numbers = [_score(scores[key]) if key in scores else "-" for key in metrics]
        place = (folder / REPORT).absolute().as_uri()
        lines.append(
            Line([Cell(shown[0], place), *(Cell(text) for text in (*shown[1:], *numbers, one["state"]))])
        )
    remark = "±: standard deviation over seeds, where there are several"
    return Table(f"Ablation: {folder.name}", [Heading(text) for text in header], lines, [remark])


def _text(value: Any) -> str:
    """A value of a setting, of a component its name and the rest."""
    if not isinstance(value, dict):
        return str(value).lower() if isinstance(value, bool) else str(value)
    others = (f"{key}={part}" for key, part in value.items() if key != "name")
    return " ".join([str(value.get("name", "")), *others]).strip()


def _score(score: Mapping[str, Any]) -> str:
    spread = "" if score["spread"] is None else f" ±{score['spread']:.4f}"
    return f"{score['mean']:.4f}{spread}"


def _paper_table(table: PaperTable) -> Table:
    lines = [
        Line(
            [
                Cell(row.name, f"{ARXIV}{table.paper}"),
                *(Cell(f"{row.metrics[key]:.1%}" if key in row.metrics else "-") for key in table.columns),
            ],
            "paper",
        )
        for row in rows_of(table)
    ]
    header = [Heading(text) for text in (table.axis, *table.columns)]
    return Table(
        f"{table.axis}, as in arXiv:{table.paper}", header, lines, [f"{table.about}; {table.source}"]
    )
