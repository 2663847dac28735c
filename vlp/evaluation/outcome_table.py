"""What became of single items as a Parquet file, from which every number can be derived again."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from vlp.metrics.outcomes import OUTCOMES, Outcomes
from vlp.shards.storage.whole import writing

KINDS = b"vlp.outcomes"


def write_outcomes(outcomes: Mapping[str, Outcomes], file: Path) -> None:
    """A row for each item: `set`, `protocol`, `item`, its place in the set, and what its outcome consists of.

    Columns of other outcomes are null; several trials of one item are a list. What is no column, as the
    number of classes, is in the file's metadata.

    Args:
        outcomes: by `set/` and the first part of the names of metrics.
    """
    tables = [_table(name, one) for name, one in outcomes.items()]
    table = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    kinds = {name: _kind(one) for name, one in outcomes.items()}
    with writing(file) as stream:
        pq.write_table(table.replace_schema_metadata({KINDS: json.dumps(kinds).encode()}), stream)


def read_outcomes(file: Path) -> dict[str, Outcomes]:
    """The inverse."""
    table = pq.read_table(file)
    kinds = json.loads(table.schema.metadata[KINDS])
    parts = _parts(table, [kind["num_items"] for kind in kinds.values()])
    return {name: _outcomes(kind, part) for (name, kind), part in zip(kinds.items(), parts, strict=True)}


def _kind(outcomes: Outcomes) -> dict[str, Any]:
    """What reading needs to know beside the rows."""
    columns = list(outcomes.columns())
    settings = {one.name: getattr(outcomes, one.name) for one in fields(outcomes) if one.name not in columns}
    return {"name": outcomes.name, "num_items": len(outcomes), "columns": columns, "settings": settings}


def _table(name: str, outcomes: Outcomes) -> pa.Table:
    data, _, protocol = name.partition("/")
    said = {"set": [data] * len(outcomes), "protocol": [protocol] * len(outcomes)}
    columns = {key: _column(value) for key, value in outcomes.columns().items()}
    return pa.table({**said, "item": range(len(outcomes)), **columns})


def _column(values: Tensor) -> Any:
    """(Q,) as it is, (T, Q) as a list for each item."""
    return values.numpy() if values.ndim == 1 else values.T.tolist()


def _parts(table: pa.Table, sizes: list[int]) -> Iterator[pa.Table]:
    start = 0
    for size in sizes:
        yield table.slice(start, size)
        start += size


def _outcomes(kind: Mapping[str, Any], part: pa.Table) -> Outcomes:
    cls = OUTCOMES[kind["name"]]
    return cls(**{key: _tensor(part[key]) for key in kind["columns"]}, **kind["settings"])


def _tensor(column: pa.ChunkedArray) -> Tensor:
    is_double = pa.types.is_float64(column.type)
    values = torch.tensor(column.to_pylist(), dtype=torch.float64 if is_double else None)
    return values if values.ndim == 1 else values.T.contiguous()
