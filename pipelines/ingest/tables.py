"""Columns of Parquet files and of Arrow streams, such as Hugging Face `datasets` saves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ARROW = ".arrow"


def column_names(file: Path) -> list[str]:
    """The top-level columns of a file."""
    return read_types(file).names


def read_types(file: Path) -> pa.Schema:
    """Names and types of the top-level columns of a file."""
    if file.suffix != ARROW:
        return pq.read_schema(file).remove_metadata()
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
        return reader.schema.remove_metadata()


def read_columns(file: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a file, part by part; what else it holds is not read."""
    batches = _stream(file, names) if file.suffix == ARROW else _parquet_batches(file, names)
    for batch in batches:
        yield pa.Table.from_batches([batch])


class ParquetCells:
    """The cells of one column by their row; the row group of the last one stays in memory."""

    def __init__(self, file: Path, column: str) -> None:
        self._file, self._column = pq.ParquetFile(file), column
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._group: tuple[int, pa.ChunkedArray] | None = None

    def __getitem__(self, row: int) -> Any:
        group = int(np.searchsorted(self._ends, row, side="right"))
        if self._group is None or self._group[0] != group:
            self._group = (group, self._file.read_row_group(group, columns=[self._column])[self._column])
        first = int(self._ends[group - 1]) if group else 0
        return self._group[1][row - first].as_py()


class ArrowCells:
    """The cells of one column by their row; a stream is read on, and anew for a row before the last batch."""

    def __init__(self, file: Path, column: str) -> None:
        self._file, self._column = file, column
        self._rewind()

    def __getitem__(self, row: int) -> Any:
        if row < self._first:
            self._rewind()
        while row >= self._first + len(self._cells):
            self._first += len(self._cells)
            batch = next(self._batches, None)
            if batch is None:
                raise OSError(f"{self._file} ends before row {row}")
            self._cells = batch.column(0)
        return self._cells[row - self._first].as_py()

    def _rewind(self) -> None:
        self._first, self._cells = 0, pa.nulls(0)
        self._batches = _stream(self._file, [self._column])


def open_cells(file: Path, column: str) -> ParquetCells | ArrowCells:
    """One column of a file, with bounded memory."""
    return ArrowCells(file, column) if file.suffix == ARROW else ParquetCells(file, column)


def _parquet_batches(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(columns=list(names))


def _stream(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The record batches of a stream, with the named columns; they lie in the file, not in memory."""
    places = [column_names(file).index(name) for name in names]
    options = pa.ipc.IpcReadOptions(included_fields=places)
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source, options=options) as reader:
        for batch in reader:
            yield batch.select(list(names))
