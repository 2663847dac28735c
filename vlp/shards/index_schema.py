"""The columns of the Parquet index beside each shard."""

import pyarrow as pa

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
