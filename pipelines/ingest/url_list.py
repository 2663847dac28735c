"""A URL list, in any of the usual formats, to the plan of its shards."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet as pq

from pipelines.config_errors import ConfigError, nearest

InputFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet"]

EXTENSIONS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


def read_url_list(path: Path, *, input_format: InputFormat, url_col: str, caption_col: str) -> pa.Table:
    """One row per distinct URL, in order of first appearance: `url`, and its `captions` (a list).

    A caption column may hold text or lists of texts; a URL that appears in several rows gets all their
    captions. A missing caption is an empty one, a row without URL is left out. `path` is a file, or a folder
    whose files of one format are read in order of their names.

    Raises:
        ConfigError: no such file, an unknown format, or a missing column.
    """
    tables = [_read(file, input_format, (url_col, caption_col)) for file in list_files(path, input_format)]
    table = pa.concat_tables(tables).combine_chunks()
    if not len(table):
        raise ConfigError(f"{path} lists no URL")
    rows, captions = _one_caption_per_row(table["captions"])
    codes = table["url"].combine_chunks().dictionary_encode()
    url_of_caption = codes.indices.to_numpy()[rows]
    order = np.argsort(url_of_caption, kind="stable")
    counts = np.bincount(url_of_caption, minlength=len(codes.dictionary))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    grouped = pa.ListArray.from_arrays(offsets, captions.take(pa.array(order)))
    return pa.table({"url": codes.dictionary, "captions": grouped})


def list_files(path: Path, input_format: InputFormat) -> list[Path]:
    """The files of a URL list, in the order they are read."""
    if path.is_file():
        return [path]
    known = [s for s, kind in EXTENSIONS.items() if input_format in ("auto", kind)]
    files = sorted(p for p in path.glob("*") if p.suffix in known) if path.is_dir() else []
    if not files:
        raise ConfigError(f"url_list: no such file, nor a folder with {', '.join(known)} files: {path}")
    return files


def file_digest(files: list[Path]) -> str:
    """SHA-256 over the content of files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def write_plan(table: pa.Table, folder: Path, *, identity: str, shard_size: int) -> None:
    """One Arrow file of URLs per shard, then `plan.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.arrow"):  # of a plan that was cut and was another one
        leftover.unlink()
    num_shards = -(-len(table) // shard_size)
    for shard in range(num_shards):
        part = table.slice(shard * shard_size, shard_size)
        pyarrow.feather.write_feather(part, folder / f"{shard:05d}.arrow", compression="zstd")
    plan = {"identity": identity, "num_shards": num_shards, "num_urls": len(table)}
    temporary = folder / "plan.json.tmp"
    temporary.write_text(json.dumps(plan))
    temporary.replace(folder / "plan.json")


def _read(file: Path, input_format: InputFormat, columns: tuple[str, str]) -> pa.Table:
    kind = EXTENSIONS.get(file.suffix) if input_format == "auto" else input_format
    if kind is None:
        raise ConfigError(f"{file}: unknown format {file.suffix!r}{nearest(file.suffix, EXTENSIONS)}")
    try:
        if kind == "parquet":
            table = pq.read_table(file)
        elif kind == "jsonl":
            table = pyarrow.json.read_json(file)
        else:
            options = pyarrow.csv.ParseOptions(
                delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True
            )
            as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
            table = pyarrow.csv.read_csv(file, parse_options=options, convert_options=as_text)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{file} is no {kind} file: {' '.join(str(error).split())}") from error
    for column in columns:
        if column not in table.column_names:
            raise ConfigError(f"{file} has no column {column!r}{nearest(column, table.column_names)}")
    url, caption = (table[column] for column in columns)
    if not (pa.types.is_list(caption.type) or pa.types.is_large_list(caption.type)):
        text = caption.cast(pa.string()).combine_chunks()
        caption = pa.ListArray.from_arrays(np.arange(len(text) + 1, dtype=np.int32), text)
    uniform = {"url": url.cast(pa.string()), "captions": caption.cast(pa.list_(pa.string()))}
    return pa.table(uniform).filter(pc.field("url") != "")


def _one_caption_per_row(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Flatten a column of lists of texts: the row of each caption, and the captions."""
    array = column.combine_chunks()
    rows = array.value_parent_indices().to_numpy()
    without = np.setdiff1d(np.arange(len(array)), rows)
    captions = pa.concat_arrays([array.flatten(), pa.nulls(len(without), pa.string())]).fill_null("")
    rows = np.concatenate([rows, without])
    order = np.argsort(rows, kind="stable")
    return rows[order], captions.take(pa.array(order))
