"""A folder of shards: WebDataset tar files with a Parquet index beside each, and a manifest.

manifest.json                what is in the folder; written last, so a folder without it is not complete
00000.tar                    000000000.jpg, 000000000.txt, 000000000.json, 000000001.jpg, ...
00000.parquet                one row per URL: key, captions, outcome, sha256, where its image lies in the tar
00000_stats.json             counts, and the checksum of the tar
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MANIFEST = "manifest.json"
MAX_OPEN_FILES = 64  # large corpora have more shards than a process may have open files (often 1,024)


class ShardSet:
    """Random access to the samples of a folder of shards, in the order of their keys.

    Raises:
        ValueError: the folder has no manifest, or no sample.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        tables = [_successes(folder / f"{shard['name']}.parquet") for shard in self.manifest["shards"]]
        self._shard = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        if not any(len(table) for table in tables):
            raise ValueError(f"{folder} holds no sample: every URL failed; its {MANIFEST} counts the reasons")
        index = pa.concat_tables(tables)
        self._offset = index["image_offset"].to_numpy()
        self._size = index["image_size"].to_numpy()
        self._captions = index["captions"].combine_chunks()
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._shard)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}  # a file descriptor means nothing in another process

    @property
    def digest(self) -> str:
        """Identity of the content: the same for the same shards, wherever they lie."""
        return self.manifest["digest"]

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of one sample."""
        shard = int(self._shard[index])
        if shard not in self._files:
            if len(self._files) == MAX_OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            path = self.folder / f"{self.manifest['shards'][shard]['name']}.tar"
            self._files[shard] = os.open(path, os.O_RDONLY)
        return os.pread(self._files[shard], int(self._size[index]), int(self._offset[index]))

    def captions(self, index: int) -> list[str]:
        """All captions of one sample."""
        return self._captions[index].as_py()


@dataclass(frozen=True)
class LabelledImages:
    """Encoded images, each with what is known about it."""

    images: list[bytes]
    labels: list[Any]
    """Class indices, or lists of captions."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder of shards holds; a ValueError names what to do where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no folder of shards: it has no {MANIFEST}; make one with `vlp download`"
        )
    return json.loads(path.read_text())


def read_captions(index_file: Path) -> list[list[str]]:
    """The captions of every sample of one shard, from its Parquet index."""
    return _successes(index_file)["captions"].to_pylist()


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


def _successes(index_file: Path) -> pa.Table:
    table = pq.read_table(index_file, columns=["status", "captions", "image_offset", "image_size"])
    return table.filter(pc.field("status") == "success")
