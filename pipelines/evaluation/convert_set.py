"""Sets of images as others keep them to evaluation sets."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config.errors import UserError, blaming
from vlp.core.config import StrictConfig
from vlp.core.registry import ByName
from vlp.evaluation.sets import CaptionedImages, EvaluationSet, LabelledImages
from vlp.layouts import LAYOUTS, Layout
from vlp.layouts.layout import Captioned, Example
from vlp.shards.storage.whole import writing_folder

ROWS_PER_FILE, ROWS_PER_GROUP = 10_000, 250
LABEL, CAPTIONS = ("label", pa.int64()), ("captions", pa.list_(pa.string()))


@dataclass(frozen=True, kw_only=True)
class ConvertSetConfig(StrictConfig):
    """What is made an evaluation set."""

    plugins: tuple[str, ...] = ()
    """Modules of one's own, whose layouts are choices, too."""
    layout: Annotated[Layout, ByName(LAYOUTS)]
    """How it is kept, and where."""


def convert_set(config: ConvertSetConfig, output: Path) -> EvaluationSet:
    """Write a set as folders of Parquet files, whole or not at all; returns it.

    Raises:
        UserError: the output is there, or something is not of the layout.
    """
    if output.exists():
        raise UserError(f"{output} is there; delete it, or choose another output")
    with blaming("layout."):
        found = config.layout.read()
    with blaming("layout: "), writing_folder(output) as folder:
        if isinstance(found, Captioned):
            _write(found.examples, folder, *CAPTIONS)
            kind = CaptionedImages
        else:
            (folder / "meta.json").write_text(json.dumps(dict(found.meta), indent=1, ensure_ascii=False))
            for split, examples in found.splits.items():
                _write(examples, folder / split, *LABEL)
            kind = LabelledImages
        kind(output.name, folder).check()
    return kind(output.name, output)


def _write(examples: Iterable[Example], folder: Path, column: str, type_: pa.DataType) -> None:
    schema = pa.schema({"image": pa.binary(), column: type_, "filename": pa.string()})
    rest, number = iter(examples), 0
    folder.mkdir(exist_ok=True)
    while group := list(islice(rest, ROWS_PER_GROUP)):
        with pq.ParquetWriter(folder / f"{number:05d}.parquet", schema) as writer:
            for rows in _groups(group, rest):
                columns = zip(zip(*rows, strict=True), schema.types, strict=True)
                arrays = [pa.array(values, kind) for values, kind in columns]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        number += 1
    if not number:
        raise ValueError(f"there are no images for {folder.name}")


def _groups(first: list[Example], rest: Iterator[Example]) -> Iterator[list[Example]]:
    """The groups of rows of one file."""
    yield first
    for _ in range(ROWS_PER_FILE // ROWS_PER_GROUP - 1):
        if not (group := list(islice(rest, ROWS_PER_GROUP))):
            return
        yield group
