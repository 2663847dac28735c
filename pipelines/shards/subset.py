"""Some samples of a folder of shards as one of their own: by keys, or by what index and selections say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config.errors import UserError, blaming
from pipelines.config.identity import fingerprint
from pipelines.shards.reshard import SourceFolder, check_absent, shard_size, write_shards
from pipelines.tracking.terminal import Progress
from vlp.shards.choice import Choice, Condition
from vlp.shards.contents import ShardsManifest, ShardStats
from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.tar import is_safe_name
from vlp.shards.writing import Sample

KEYS, SELECTION = "keys=", "selection="


@dataclass(frozen=True)
class Wanted:
    """Which rows are taken: those that are chosen, and whose key is listed if there is a list."""

    choice: Choice
    keys: frozenset[str] | None

    @classmethod
    def parse(cls, texts: Sequence[str], source: SourceFolder) -> Self:
        """From `keys=FILE`, `selection=FOLDER`, and comparisons of a column of the index, or of a selection,
        with a value, such as `width>=256`.

        Raises:
            UserError: names the text that is neither, or the column that there is not.
        """
        files = [text.removeprefix(KEYS) for text in texts if text.startswith(KEYS)]
        folders = [text.removeprefix(SELECTION) for text in texts if text.startswith(SELECTION)]
        comparisons = _comparisons(texts)
        if not files and not comparisons:
            raise UserError("name what to take: keys=FILE, or a comparison such as 'width>=256'")
        with blaming():
            choice = Choice.open(
                comparisons,
                list(map(open_folder, folders)),
                of=source.manifest,
                columns=pa.schema([*INDEX_SCHEMA, *source.more]),
            )
        keys = [key for file in files for key in read_keys(Path(file))]
        return cls(choice, frozenset(keys) if files else None)

    def rows(self, index: pa.Table, stats: ShardStats) -> pa.Table:
        """The rows of a shard's index that are taken."""
        with blaming():
            index = self.choice.rows(index, stats)
        if self.keys is None:
            return index
        return index.filter(pa.array([key in self.keys for key in index["key"].to_pylist()], pa.bool_()))


def subset(folder: Path | Folder, texts: Sequence[str], output: Path) -> ShardsManifest:
    """Write the folder; returns its manifest. Samples keep their keys, so they are found in the old one.

    Raises:
        UserError: as `Wanted.parse`; or no row is selected, the folder is torn, or the output exists.
    """
    check_absent(output)
    source = SourceFolder.open(folder)
    wanted = Wanted.parse(texts, source)
    described: dict[str, Any] = {"subset_of": source.manifest.digest, "selected_by": _comparisons(texts)}
    if wanted.choice.selections:
        described["selections"] = [one.manifest.digest for one in wanted.choice.selections]
    if wanted.keys is not None:
        described["keys"] = fingerprint(sorted(wanted.keys))
        described["num_keys_listed"] = len(wanted.keys)
    samples, size = _samples(source, wanted), shard_size([source])
    return write_shards(samples, output, size=size, more=source.more, **described)


def read_keys(file: Path) -> list[str]:
    """The keys of a text file, one per line, or of the column `key` of a Parquet file."""
    if not file.is_file():
        raise UserError(f"keys: no such file: {file}")
    if file.suffix != ".parquet":
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    names = pq.read_schema(file).names
    if "key" not in names:
        raise UserError(f"keys: {file} has no column 'key'; it has {', '.join(names)}")
    return pq.read_table(file, columns=["key"])["key"].cast(pa.string()).to_pylist()


def _comparisons(texts: Sequence[str]) -> list[str]:
    found = [text for text in texts if not text.startswith((KEYS, SELECTION))]
    for text in found:
        try:
            Condition.parse(text)
        except ValueError as error:
            raise UserError(f"{error}, nor keys=FILE or selection=FOLDER") from error
    return found


def _samples(source: SourceFolder, wanted: Wanted) -> Iterator[Sample]:
    progress = Progress("subset", len(source.shards), "shards")
    for done, stats in enumerate(source.manifest.shards, start=1):
        name = stats.name
        for sample in source.samples(name, wanted.rows(source.index(name), stats)):
            if not is_safe_name(sample.key):
                raise UserError(
                    f"{source.folder / name}.parquet: the key {sample.key!r} leads out of a folder; delete "
                    f"{name}_stats.json and run `vlp data index {source.folder}`, which leaves it out"
                )
            yield sample
        progress.update(done)
