"""Parquet files of encoded images, each with what is known about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class ImageTable:
    """A Parquet file with a column `image` of encoded images, and another of what is known about them."""

    file: Path
    column: str
    """The other column: class indices, or lists of captions."""

    def check(self) -> None:
        """Raise a ValueError that names the file unless it has both columns."""
        if not self.file.is_file():
            raise ValueError(f"no such file: {self.file}")
        try:
            names = pq.read_schema(self.file).names
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.file} is not a Parquet file") from error
        if not {"image", self.column} <= set(names):
            raise ValueError(
                f"{self.file} lacks the columns image and {self.column}; it has {', '.join(names)}"
            )

    @property
    def num_rows(self) -> int:
        """How many images it has."""
        return pq.read_metadata(self.file).num_rows

    def images(self) -> list[bytes]:
        """Every image."""
        return pq.read_table(self.file, columns=["image"])["image"].to_pylist()

    def first_images(self, count: int) -> list[bytes]:
        """As many images from the beginning, or all where there are fewer."""
        with pq.ParquetFile(self.file) as file:
            batches = file.iter_batches(batch_size=count, columns=["image"])
            return next((batch["image"].to_pylist() for batch in batches), [])

    def images_at(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Some images, read a few at a time.

        Args:
            rows: their places, ascending.
        """
        start, wanted = 0, set(rows)
        with pq.ParquetFile(self.file) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["image"]):
                own = range(start, start + len(batch))
                yield from (batch["image"][row - start].as_py() for row in own if row in wanted)
                start = own.stop

    def labels(self) -> list[Any]:
        """What is known about every image."""
        return pq.read_table(self.file, columns=[self.column])[self.column].to_pylist()
