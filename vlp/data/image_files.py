"""Files of encoded images, on this machine or in an object store: Parquet files and shards."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.contents import ShardsManifest
from vlp.shards.index_schema import samples_of
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.folder import Folder

ROWS_AT_ONCE = 64  # encoded images in memory: large ones have megabytes
Identify = Callable[[Folder, str], str]
"""What tells the content of a file, by its folder and name."""


@dataclass(frozen=True)
class ImageFile(ABC):
    """Images in their order, each with what is known about it."""

    folder: Folder
    name: str

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """How many images it has."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, str]:
        """Names and types of what is known about them, and `image`."""

    @abstractmethod
    def labels(self, column: str) -> list[Any]:
        """What is known about every image."""

    @abstractmethod
    def images(self, rows: range) -> Iterator[bytes]:
        """Some images, read a few at a time."""

    @abstractmethod
    def identity(self, identify: Identify) -> str:
        """What tells its content."""

    def __str__(self) -> str:
        return str(self.folder / self.name)


@dataclass(frozen=True)
class ParquetImages(ImageFile):
    """A Parquet file with a column `image` of encoded images."""

    @property
    def num_rows(self) -> int:
        return sum(self._group_sizes)

    @property
    def columns(self) -> Mapping[str, str]:
        try:
            return _types(self.folder.columns(self.name))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self} is not a Parquet file") from error

    def labels(self, column: str) -> list[Any]:
        return self.folder.table(self.name, [column])[column].to_pylist()

    def images(self, rows: range) -> Iterator[bytes]:
        ends = np.cumsum([0, *self._group_sizes])
        first = int(np.searchsorted(ends, rows.start, side="right")) - 1
        last = int(np.searchsorted(ends, rows.stop, side="left"))
        position = int(ends[first])
        with self.folder.open(self.name) as stream, pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=range(first, last), columns=["image"]):
                wanted = slice(max(0, rows.start - position), max(0, rows.stop - position))
                yield from batch["image"][wanted].to_pylist()
                position += len(batch)

    def identity(self, identify: Identify) -> str:
        return identify(self.folder, self.name)

    @cached_property
    def _group_sizes(self) -> list[int]:
        with self.folder.open(self.name) as stream:
            found = pq.read_metadata(stream)
            return [found.row_group(group).num_rows for group in range(found.num_row_groups)]


@dataclass(frozen=True)
class ShardImages(ImageFile):
    """The samples of a shard; the columns are those of its index.

    Args:
        captioned: whether images without a caption are left out.
    """

    num_samples: int
    tar_sha256: str
    captioned: bool

    @property
    def num_rows(self) -> int:
        return self.num_samples

    @property
    def columns(self) -> Mapping[str, str]:
        return {"image": "binary", **_types(self.folder.columns(f"{self.name}.parquet"))}

    def labels(self, column: str) -> list[Any]:
        return self._index([column])[column].to_pylist()

    def images(self, rows: range) -> Iterator[bytes]:
        index = self._index(["image_offset", "image_size"]).slice(rows.start, len(rows))
        with self.folder.fetched(f"{self.name}.tar") as tar:
            for offset, size in zip(*(column.to_pylist() for column in index.columns), strict=True):
                tar.seek(offset)
                yield tar.read(size)

    def identity(self, identify: Identify) -> str:
        return f"{self.tar_sha256} {identify(self.folder, f'{self.name}.parquet')}"

    def _index(self, columns: list[str]) -> pa.Table:
        needed = list(dict.fromkeys([*columns, "status", "captions"]))
        index = self.folder.table(f"{self.name}.parquet", needed)
        return samples_of(index, captioned=self.captioned).select(columns)


def _types(columns: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in columns}


def image_files(place: Folder, *, captioned: bool) -> list[ImageFile]:
    """The files that lie at a place: a Parquet file, a folder of them in the order of their names, or shards.

    Args:
        captioned: whether images of shards that have no caption are left out.
    """
    names = place.names()
    if MANIFEST in names:
        return [
            ShardImages(
                place,
                shard.name,
                shard.successes - (shard.without_captions if captioned else 0),
                shard.tar_sha256,
                captioned,
            )
            for shard in ShardsManifest.read(place).shards
        ]
    if names:
        return [ParquetImages(place, name) for name in sorted(names) if name.endswith(".parquet")]
    is_there = place.name in place.parent.names()
    return [ParquetImages(place.parent, place.name)] if is_there else []
