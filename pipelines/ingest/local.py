"""Images that lie on disk already: files with captions beside them, or a column of Parquet files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config_errors import ConfigError, nearest
from pipelines.ingest.fetch import Request
from pipelines.ingest.outcome import SUCCESS, Download
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.url_list import IMAGE_SUFFIXES, list_images

ROW = "#"


def read_image_folder(folder: Path) -> pa.Table:
    """One row per image: its path as `url`, and as `captions` the lines of the .txt file of the same name."""
    files = [file for file in list_images(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    rows = {
        "url": [file.relative_to(folder).as_posix() for file in files],
        "captions": [_captions(file.with_suffix(".txt")) for file in files],
        "digest": pa.nulls(len(files), pa.string()),
    }
    return pa.table(rows)


def read_parquet_images(files: Sequence[Path], image_col: str, caption_col: str) -> pa.Table:
    """One row per row of Parquet files: its file and number as `url`, and its `captions`.

    Raises:
        ConfigError: a file is no Parquet file, or lacks a column.
    """
    urls, captions = [], []
    for file in files:
        try:
            names = pq.read_schema(file).names
            for column in (image_col, caption_col):
                if column not in names:
                    raise ConfigError(f"{file} has no column {column!r}{nearest(column, names)}")
            found = pq.read_table(file, columns=[caption_col])[caption_col].to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{file} is no parquet file: {' '.join(str(error).split())}") from error
        urls += [f"{file.name}{ROW}{row}" for row in range(len(found))]
        captions += [_texts(value) for value in found]
    digests = pa.nulls(len(urls), pa.string())
    return pa.table({"url": urls, "captions": pa.array(captions, pa.list_(pa.string())), "digest": digests})


class LocalImages:
    """Reads images one at a time, in place of a `Fetcher`."""

    def __init__(self, config: DownloadConfig) -> None:
        self.root = config.url_list if config.url_list.is_dir() else config.url_list.parent
        self.column = config.image_col
        self.max_body_bytes = config.max_body_bytes
        self._file: tuple[str, pq.ParquetFile] | None = None
        self._group: tuple[int, pa.ChunkedArray] | None = None

    @contextmanager
    def fetch(self, requests: Sequence[Request]) -> Iterator[Iterator[tuple[int, Download] | None]]:
        """Position and content of every image."""
        yield ((i, self._download(request.url)) for i, request in enumerate(requests))

    def release(self, download: Download) -> None:
        """Nothing is held."""

    def _download(self, name: str) -> Download:
        try:
            body = self._read_file(name) if self.column is None else self._read_row(name, self.column)
        except (OSError, pa.ArrowException) as error:
            return Download("unreadable", str(error), None)
        if body is None:
            return Download("unreadable", "the row holds no image", None)
        if len(body) > self.max_body_bytes:
            return Download("too_large", f"{len(body):,} bytes", None)
        return Download(SUCCESS, None, body)

    def _read_file(self, name: str) -> bytes:
        with (self.root / name).open("rb") as stream:
            return stream.read(self.max_body_bytes + 1)

    def _read_row(self, name: str, column: str) -> bytes | None:
        """One cell; its row group stays in memory, as the next row is mostly in it too."""
        path, _, row = name.rpartition(ROW)
        if self._file is None or self._file[0] != path:
            self._file, self._group = (path, pq.ParquetFile(self.root / path)), None
        file = self._file[1]
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        group = int(np.searchsorted(ends, int(row), side="right"))
        if self._group is None or self._group[0] != group:
            self._group = (group, file.read_row_group(group, columns=[column])[column])
        value = self._group[1][int(row) - int(ends[group] - sizes[group])].as_py()
        return value["bytes"] if isinstance(value, dict) else value  # Hugging Face keeps {bytes, path}


def _captions(file: Path) -> list[str]:
    if not file.is_file():
        return [""]
    return file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return ["" if text is None else str(text) for text in values] or [""]
