"""Which samples of a folder of shards are taken: by what its indexes and selections say of them."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Self

import pyarrow as pa

from vlp.shards.contents import ShardsManifest, ShardStats
from vlp.shards.index_schema import INDEX_SCHEMA, NO_COLUMNS, more_columns, pc
from vlp.shards.selection import KEY, Selection
from vlp.shards.storage.folder import Folder

COMPARISON = re.compile(r"\s*([^\s=!<>][^=!<>]*?)\s*(==|!=|>=|<=|>|<)\s*(.*?)\s*")
FUNCTIONS = {
    "==": "equal",
    "!=": "not_equal",
    ">=": "greater_equal",
    "<=": "less_equal",
    ">": "greater",
    "<": "less",
}
"""What Arrow calls each comparison."""


@dataclass(frozen=True)
class Condition:
    """A column that is compared with a value; a row in which it has none does not meet it."""

    text: str
    column: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a comparison such as `width>=256`; a ValueError if it is not one."""
        match = COMPARISON.fullmatch(text)
        if match is None:
            raise ValueError(f"cannot read {text!r}; it is not a comparison such as 'width>=256'")
        return cls(text, *match.groups())

    def check(self, columns: pa.Schema) -> None:
        """Raise a ValueError where there is no such column, or the value is not of its type."""
        if self.column not in columns.names:
            close = get_close_matches(self.column, columns.names, n=1)
            others = f"did you mean {close[0]}?" if close else f"valid: {', '.join(sorted(columns.names))}"
            raise ValueError(f"the index has no column {self.column!r}; {others}")
        kind = columns.field(self.column).type
        try:
            pa.scalar(self.value).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"{self.text!r}: {self.column} is {kind}, which {self.value!r} is not"
            ) from error

    def holds(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """For which values it holds: (R,) bool, or null."""
        return pc.call_function(FUNCTIONS[self.sign], [column, pa.scalar(self.value).cast(column.type)])


@dataclass(frozen=True)
class Choice:
    """The rows of the indexes of a folder that meet all of some conditions."""

    conditions: tuple[Condition, ...] = ()
    selections: tuple[Selection, ...] = ()

    @classmethod
    def open(
        cls, texts: Sequence[str], selections: Sequence[Folder], *, of: ShardsManifest, columns: pa.Schema
    ) -> Self:
        """From comparisons of columns of the index, or of selections, with values.

        Args:
            of: the manifest of the folder of shards.
            columns: of its indexes; those of selections hide theirs of the same names.

        Raises:
            ValueError: a text is not a comparison, a column is missing or in two selections, or a folder has
                no selection of these shards.
        """
        conditions = tuple(map(Condition.parse, texts))
        opened = tuple(Selection.open(folder, of) for folder in selections)
        known = {field.name: field for field in columns}
        for i, selection in enumerate(opened):
            for earlier in opened[:i]:
                if twice := sorted(set(earlier.columns.names).intersection(selection.columns.names)):
                    raise ValueError(
                        f"{earlier.folder} and {selection.folder} both have a column {twice[0]!r}; name one"
                    )
            known |= {field.name: field for field in selection.columns}
        for condition in conditions:
            condition.check(pa.schema(list(known.values())))
        used = {condition.column for condition in conditions}
        return cls(conditions, tuple(one for one in opened if used.intersection(one.columns.names)))

    def digest(self, of: ShardsManifest) -> str:
        """Identity of what is taken of a folder; that of the folder where it is everything."""
        if not self.conditions:
            return of.digest
        parts = [[one.text for one in self.conditions], [one.manifest.digest for one in self.selections]]
        return hashlib.sha256(json.dumps([of.digest, *map(sorted, parts)]).encode()).hexdigest()

    def rows(self, index: pa.Table, stats: ShardStats) -> pa.Table:
        """The rows of a shard's index that are taken."""
        known = dict(zip(index.column_names, index.columns, strict=True))
        for selection in self.selections:
            found = selection.of_shard(stats, index[KEY])
            known |= dict(zip(found.column_names, found.columns, strict=True))
        taken = [one.holds(known[one.column]) for one in self.conditions]
        return index.filter(reduce(pc.and_, taken)) if taken else index

    def read(self, folder: Folder, stats: ShardStats, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows of a shard that are taken."""
        file = f"{stats.name}.parquet"
        elsewhere = {name for selection in self.selections for name in selection.columns.names}
        used = [one.column for one in self.conditions if one.column not in elsewhere]
        names = list(dict.fromkeys([*columns, KEY, *used] if self.conditions else columns))
        return self.rows(_read(folder, file, names), stats).select(list(columns))


def _read(folder: Folder, file: str, names: Sequence[str]) -> pa.Table:
    """Columns of an index; those beside ours that it lacks, as other shards have them, hold nothing."""
    missing = [name for name in names if name not in INDEX_SCHEMA.names]
    if missing:
        there = set(folder.columns(file).names)
        missing = [name for name in missing if name not in there]
    table = folder.table(file, [name for name in names if name not in missing])
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


@dataclass(frozen=True)
class Where:
    """Which samples are to be taken, before anything is read."""

    conditions: tuple[str, ...] = ()
    selections: tuple[Folder, ...] = ()

    def open(self, folder: Folder, manifest: ShardsManifest) -> Choice:
        """The choice among the samples of a folder; a ValueError as `Choice.open`."""
        if not self.conditions:
            return Choice()
        more = folder.columns(f"{manifest.shards[0].name}.parquet") if manifest.shards else NO_COLUMNS
        columns = pa.schema([*INDEX_SCHEMA, *more_columns(more)])
        return Choice.open(self.conditions, self.selections, of=manifest, columns=columns)
