"""Parquet files of encoded images, each with what is known about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclass(frozen=True)
class LabelledImages:
    """Encoded images, each with what is known about it."""

    images: list[bytes]
    labels: list[Any]
    """Class indices, or lists of captions."""


def read_images(file: Path, column: str) -> LabelledImages:
    """A Parquet file with a column `image` of encoded images and `column` beside it."""
    if not file.is_file():
        raise ValueError(f"no such file: {file}")
    schema = pq.read_schema(file)
    missing = {"image", column} - set(schema.names)
    if missing:
        raise ValueError(f"{file} has no column {sorted(missing)[0]!r}; it has {', '.join(schema.names)}")
    table = pq.read_table(file, columns=["image", column])
    return LabelledImages(table["image"].to_pylist(), table[column].to_pylist())
