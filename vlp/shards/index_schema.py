"""The columns of the Parquet index beside each shard."""

from typing import Any

import pyarrow as pa
import pyarrow.compute

from vlp.shards.outcome import SUCCESS

pc: Any = pyarrow.compute  # its functions are made as it is imported, which no type checker sees

INDEX_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "captions": pa.list_(pa.string()),
        "status": pa.string(),
        "error_message": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "original_width": pa.int32(),
        "original_height": pa.int32(),
        "sha256": pa.string(),
        "dhash": pa.uint64(),
        "shard": pa.string(),
        "image_offset": pa.int64(),
        "image_size": pa.int64(),
    }
)
NO_COLUMNS = pa.schema([])


def more_columns(columns: pa.Schema) -> pa.Schema:
    """The columns of an index beside ours: those of the list that the shard was made of."""
    more = pa.schema([field for field in columns if field.name not in INDEX_SCHEMA.names])
    return more.remove_metadata()


def samples_of(index: pa.Table, *, captioned: bool = False) -> pa.Table:
    """The rows of an index that are samples; without those that have no caption, if so asked."""
    is_sample = pc.field("status") == SUCCESS
    if captioned:
        is_sample &= pc.list_value_length(pc.field("captions")) > 0
    return index.filter(is_sample)


def count_without_captions(index: pa.Table) -> int:
    """Samples of an index that have no caption."""
    return samples_of(index).num_rows - samples_of(index, captioned=True).num_rows
