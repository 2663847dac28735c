"""JSON lines to tables, line by line: Arrow's parser of whole blocks dies of lines that are no objects."""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

LINES_AT_A_TIME = 50_000


def open_text(file: Path) -> io.TextIOWrapper:
    """A text file, unpacked where its name ends with .gz, .bz2 or .zst."""
    return io.TextIOWrapper(pa.input_stream(str(file), compression="detect"), encoding="utf-8")


def read_json_lines(file: Path, names: Sequence[str], *, as_text: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The named columns as texts, or as lists of texts where any value of a part is a list, part by part.

    Values of the columns `as_text` may be anything, which becomes text as JSON has it. If no line has one of
    the columns, a last and empty table has those that there are.

    Raises:
        ValueError: names a line that is not a JSON object, or has a value other than text, numbers or lists.
    """
    seen: dict[str, None] = {}
    with open_text(file) as stream:
        lines = ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
        while batch := list(itertools.islice(lines, LINES_AT_A_TIME)):
            rows = [_parse(number, line, names, as_text) for number, line in batch]
            for row in rows:
                seen |= dict.fromkeys(row)
            yield pa.table({name: _array([row.get(name) for row in rows]) for name in names})
    if not set(names) <= set(seen):
        yield pa.table({name: pa.nulls(0, pa.string()) for name in seen})


def _parse(number: int, line: str, names: Sequence[str], as_text: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("is not a JSON object")
        for name in set(as_text) & set(row):
            row[name] = row[name] if isinstance(row[name], str | None) else json.dumps(row[name])
        return row | {name: _texts(row[name]) for name in names if name in row}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: {error}") from error


def _texts(value: Any) -> Any:
    """Text, None, or a list of both; numbers become text."""
    if isinstance(value, list):
        if any(isinstance(item, list) for item in value):
            raise ValueError("holds a list of lists")
        return [_texts(item) for item in value]
    if isinstance(value, dict):
        raise ValueError("holds an object in place of a text")
    if isinstance(value, str):
        value.encode()  # half a character of two is not text: a ValueError
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _array(values: list[Any]) -> pa.Array:
    if not any(isinstance(value, list) for value in values):
        return pa.array(values, pa.string())
    as_lists = [value if value is None or isinstance(value, list) else [value] for value in values]
    return pa.array(as_lists, pa.list_(pa.string()))
