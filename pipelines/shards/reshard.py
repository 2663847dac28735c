"""New folders of shards from old ones: images are copied as they are, tars and indices are written anew.

A folder gets its name when it is complete, so one that was killed on the way leaves nothing that looks whole.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from vlp.shards.manifest import MANIFEST, read_manifest, set_digest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder
from vlp.shards.writing import Sample, write_shard

SHARD_DIGITS = 5


@dataclass(frozen=True)
class Source:
    """A folder of shards that is read."""

    folder: Folder
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: Path | Folder) -> "Source":
        """Raises a UserError if the folder is no complete folder of shards."""
        try:
            return cls(open_folder(folder), read_manifest(folder))
        except ValueError as error:
            raise UserError(str(error)) from error

    @property
    def shards(self) -> list[str]:
        """Names of the shards, in order."""
        return [shard["name"] for shard in self.manifest["shards"]]

    def index(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One row per URL of a shard."""
        return self.folder.table(f"{shard}.parquet", columns)

    def samples(self, shard: str, rows: pa.Table) -> Iterator[Sample]:
        """Rows of a shard's index, with the encoded images of its tar."""
        with self.folder.fetched(f"{shard}.tar") as tar:
            for row in rows.to_pylist():
                encoded = None
                if row["status"] == SUCCESS:
                    encoded = os.pread(tar.fileno(), row["image_size"], row["image_offset"])
                yield _sample(row, encoded)


def shard_size(sources: Iterable[Source]) -> int:
    """The rows of the largest shard."""
    return max((shard["count"] for source in sources for shard in source.manifest["shards"]), default=1)


def write_folder(samples: Iterable[Sample], output: Path, *, size: int, **described: Any) -> dict[str, Any]:
    """Write samples into shards of `size` rows, numbered from 0; returns the manifest.

    Args:
        described: what else the manifest says, such as where the samples come from; also its identity.

    Raises:
        UserError: the folder exists already, or there are no samples.
    """
    with _appearing_whole(output) as folder:
        shards, left = [], iter(samples)
        while batch := list(islice(left, size)):
            shards.append(write_shard(folder, f"{len(shards):0{SHARD_DIGITS}d}", batch))
        if not shards:
            raise UserError("no row is selected")
        outcomes = sum((Counter(shard["status_dict"]) for shard in shards), Counter())
        manifest = {
            "identity": fingerprint(described, size),
            "digest": set_digest(shards),
            "num_urls": sum(shard["count"] for shard in shards),
            "num_samples": sum(shard["successes"] for shard in shards),
            "outcomes": dict(sorted(outcomes.items())),
            "shards": shards,
        }
        LocalFolder(folder).write_json(MANIFEST, manifest | described)
    return manifest | described


def check_absent(output: Path) -> None:
    """Raises a UserError if the folder exists: nothing is ever added to a folder of shards."""
    if output.exists():
        raise UserError(f"{output} exists already; choose another output folder")


def renumbered(samples: Iterable[Sample], *, size: int) -> Iterator[Sample]:
    """With fresh keys: the number of the shard, then that within it."""
    digits = len(str(size - 1))
    for number, sample in enumerate(samples):
        yield sample._replace(key=f"{number // size:0{SHARD_DIGITS}d}{number % size:0{digits}d}")


@contextmanager
def _appearing_whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its name at the end."""
    check_absent(output)
    folder = output.with_name(f"{output.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # what one that was killed left
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sample(row: dict[str, Any], encoded: bytes | None) -> Sample:
    # Whatever else is stored of an image has a column of its name.
    more = {name: row[name] for name in StoredImage._fields if name in row}
    image = StoredImage(
        outcome=row["status"],
        error=row["error_message"],
        encoded=encoded,
        size=(row["width"], row["height"]),
        original_size=(row["original_width"], row["original_height"]),
        **more,
    )
    return Sample(row["key"], row["url"], row["captions"], image)
