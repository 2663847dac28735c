"""The papers' numbers, as `papers.yaml` has them, in the units of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import yaml
from pydantic import TypeAdapter

from vlp.core.config import StrictConfig

FILE = Path(__file__).with_suffix(".yaml")
TIME = "time"


@dataclass(frozen=True, kw_only=True)
class PaperTable(StrictConfig):
    """A table of a paper, or a part of it."""

    paper: str
    """Number on arXiv."""
    about: str
    """The models that it is about, and what they were trained on."""
    source: str
    """Where the numbers were read, and what is wrong with them there."""
    columns: tuple[str, ...]
    """Metrics, by `set/metric` as ours are called, or `time`."""
    rows: Mapping[str, tuple[float | None, ...]]
    """Model -> its numbers, in percent; null where there is none."""
    axis: str = ""
    """Of an ablation, the setting whose values are the names of the rows."""
    objective: str = ""
    """Of an ablation, the objective that has the setting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(f"{name} has {len(numbers)} numbers for {len(self.columns)} columns")


class PaperRow(NamedTuple):
    """What a paper reports of one model."""

    name: str
    table: PaperTable
    metrics: Mapping[str, float]
    """By `set/metric`, shares in [0, 1]; means of parts are computed from them."""
    time: float | None
    """Of training, in that of the table's first row."""


@cache
def paper_tables() -> tuple[PaperTable, ...]:
    """Every table."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[PaperTable, ...]).validate_python(content)


def paper_rows() -> list[PaperRow]:
    """What is not an ablation."""
    return [row for table in paper_tables() if not table.axis for row in rows_of(table)]


def rows_of(table: PaperTable) -> list[PaperRow]:
    """The rows of a table, in the units of our metrics."""
    return [_row(name, table, numbers) for name, numbers in table.rows.items()]


def _row(name: str, table: PaperTable, numbers: tuple[float | None, ...]) -> PaperRow:
    known = {key: value for key, value in zip(table.columns, numbers, strict=True) if value is not None}
    shares = {key: value / 100 for key, value in known.items() if key != TIME}
    return PaperRow(name, table, shares | _means_of_parts(shares), known.get(TIME))


def _means_of_parts(shares: Mapping[str, float]) -> dict[str, float]:
    """Of choices between captions: over the parts that end alike, and over all."""
    found: dict[str, list[float]] = {}
    for key, value in shares.items():
        name, _, rest = key.partition("/choice/")
        if part := rest.removesuffix("/acc1"):
            found.setdefault(f"{name}/choice/{part.rpartition('_')[2]}", []).append(value)
            found.setdefault(f"{name}/choice", []).append(value)
    return {f"{key}/mean_part_acc1": mean(values) for key, values in found.items() if len(values) > 1}
