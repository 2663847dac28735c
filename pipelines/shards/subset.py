"""Some samples of a folder of shards as one of their own: by a list of keys, or by what the index says."""

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config.errors import UserError, nearest
from pipelines.config.identity import fingerprint
from pipelines.shards.reshard import SourceFolder, check_absent, shard_size, write_shards
from pipelines.tracking.terminal import Progress
from vlp.shards.contents import ShardsManifest
from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.storage.folder import Folder
from vlp.shards.tar import is_safe_name
from vlp.shards.writing import Sample

COMPARISON = re.compile(r"\s*([^\s=!<>][^=!<>]*?)\s*(==|!=|>=|<=|>|<)\s*(.*?)\s*")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Selection:
    """Which rows are taken: those that every condition allows, and whose key is listed if there is a list."""

    conditions: tuple[pc.Expression, ...]
    keys: frozenset[str] | None

    @classmethod
    def parse(cls, texts: Sequence[str], columns: pa.Schema) -> "Selection":
        """From `keys=FILE` and comparisons of a column of the index with a value, such as `width>=256`.

        Args:
            columns: of the index.

        Raises:
            UserError: names the text that is neither, or the column that there is not.
        """
        if not texts:
            raise UserError("name what to take: keys=FILE, or a comparison such as 'width>=256'")
        files = [text.removeprefix("keys=") for text in texts if text.startswith("keys=")]
        conditions = tuple(_comparison(text, columns) for text in texts if not text.startswith("keys="))
        keys = [key for file in files for key in read_keys(Path(file))]
        return cls(conditions, frozenset(keys) if files else None)

    def rows(self, index: pa.Table) -> pa.Table:
        """The rows of a shard's index that are taken."""
        for condition in self.conditions:
            index = index.filter(condition)
        if self.keys is None:
            return index
        return index.filter(pa.array([key in self.keys for key in index["key"].to_pylist()], pa.bool_()))


def subset(folder: Path | Folder, texts: Sequence[str], output: Path) -> ShardsManifest:
    """Write the folder; returns its manifest. Samples keep their keys, so they are found in the old one.

    Raises:
        UserError: as `Selection.parse`; or no row is selected, the folder is torn, or the output exists.
    """
    check_absent(output)
    source = SourceFolder.open(folder)
    selection = Selection.parse(texts, pa.schema([*INDEX_SCHEMA, *source.more]))
    comparisons = [text for text in texts if not text.startswith("keys=")]
    described: dict[str, Any] = {"subset_of": source.manifest.digest, "selected_by": comparisons}
    if selection.keys is not None:
        described["keys"] = fingerprint(sorted(selection.keys))
        described["num_keys_listed"] = len(selection.keys)
    samples, size = _samples(source, selection), shard_size([source])
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


def _comparison(text: str, columns: pa.Schema) -> pc.Expression:
    match = COMPARISON.fullmatch(text)
    if match is None:
        raise UserError(
            f"cannot read {text!r}; it is neither keys=FILE nor a comparison such as 'width>=256'"
        )
    column, sign, value = match.groups()
    if column not in columns.names:
        raise UserError(f"the index has no column {column!r}{nearest(column, columns.names)}")
    kind = columns.field(column).type
    try:
        scalar = pa.scalar(value).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{text!r}: {column} is {kind}, which {value!r} is not") from error
    return OPERATORS[sign](pc.field(column), scalar)


def _samples(source: SourceFolder, selection: Selection) -> Iterator[Sample]:
    progress = Progress("subset", len(source.shards), "shards")
    for done, name in enumerate(source.shards, start=1):
        for sample in source.samples(name, selection.rows(source.index(name))):
            if not is_safe_name(sample.key):
                raise UserError(
                    f"{source.folder / name}.parquet: the key {sample.key!r} leads out of a folder; delete "
                    f"{name}_stats.json and run `vlp data index {source.folder}`, which leaves it out"
                )
            yield sample
        progress.update(done)
