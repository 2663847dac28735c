"""CSV and TSV files to tables, part by part: a quotation mark never hides the rows that follow it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

compute: Any = pyarrow.compute  # its functions are made as it is imported, which no type checker sees

CHUNK = 2**24
QUOTED = rb'"(?:[^"]++|"")*+"'
FIELDS = re.compile(rb"(?:(?:" + QUOTED + rb'|[^",\r\n][^,\r\n]*+|)(?:,|\r?\n|\r))*+')
"""Whole fields of a CSV by RFC 4180, each with the comma or the end of line behind it."""
TORN = re.compile(QUOTED + rb'[^",\r\n]')


def read_csv(file: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """The named columns as texts; an empty table of those that there are if one is missing, or there twice.

    Raises:
        ValueError: names the line of a quotation mark that is not closed at the end of its field.
    """
    with pyarrow.input_stream(file) as stream:
        _check_quotes(stream)
    yield from _read(file, pyarrow.csv.ParseOptions(newlines_in_values=True), names)


def read_tsv(file: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """As `read_csv`; but a row is one line, and a quotation mark a letter, unless a whole field is quoted."""
    parse = pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False)
    for table in _read(file, parse, names):
        yield pa.table([_unquoted(column) for column in table.columns], table.column_names)


def _read(file: Path, parse: pyarrow.csv.ParseOptions, names: Sequence[str]) -> Iterator[pa.Table]:
    with pyarrow.csv.open_csv(file, parse_options=parse) as reader:
        raw = reader.schema.names
    known = _unquoted(pa.chunked_array([raw])).to_pylist() if parse.quote_char is False else raw
    if not all(known.count(name) == 1 for name in names):
        yield pa.Table.from_arrays([pa.nulls(0, pa.string())] * len(known), known)
        return
    # The types of the others are guessed from the first rows, and later ones may not fit.
    chosen = [raw[known.index(name)] for name in names]
    convert = pyarrow.csv.ConvertOptions(
        include_columns=chosen, column_types=dict.fromkeys(chosen, pa.string())
    )
    with pyarrow.csv.open_csv(file, parse_options=parse, convert_options=convert) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch]).rename_columns(list(names))


def _unquoted(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Fields that are quoted as a whole without their quotation marks."""
    inner = compute.replace_substring(compute.utf8_slice_codeunits(texts, 1, -1), '""', '"')
    return compute.if_else(compute.match_substring_regex(texts, r'^"([^"]|"")*"$'), inner, texts)


def _check_quotes(stream: BinaryIO) -> None:
    rest, line = b"", 1
    while chunk := stream.read(CHUNK):
        text = rest + chunk
        if line == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        found = FIELDS.match(text)
        end = found.end() if found else 0
        line += text.count(b"\n", 0, end)
        rest = text[end:]
        if TORN.match(rest) or len(rest) > CHUNK:
            raise _torn(line)
    if rest.startswith(b'"') and not re.fullmatch(QUOTED, rest):
        raise _torn(line)


def _torn(line: int) -> ValueError:
    return ValueError(
        f"line {line:,}: a field begins with a quotation mark, which is not closed where a field ends; "
        "double the quotation marks within it, or write the list as TSV, JSON lines or Parquet"
    )
