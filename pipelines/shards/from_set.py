"""A labelled evaluation set to shards whose captions name the classes, to be fine-tuned on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.errors import UserError, blaming
from pipelines.shards.reshard import check_absent, renumbered, write_shards
from vlp.core.config import naming
from vlp.data.image_tables import ImageTable
from vlp.data.transforms import EncodedImage
from vlp.evaluation.sets import LabelledImages
from vlp.shards.contents import ShardsManifest
from vlp.shards.index_schema import NO_COLUMNS
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.storage.folder import Folder
from vlp.shards.writing import Sample

ROWS_PER_SHARD = 10_000


def from_set(folder: Folder, output: Path, *, split: str) -> ShardsManifest:
    """Write the images of a split, as they are, each with the name of its class; returns the manifest.

    Args:
        split: train or test.

    Raises:
        UserError: the set is not whole, it has no such split, or the output exists.
    """
    check_absent(output)
    data = LabelledImages(folder.name, folder)
    with blaming():
        data.check()
    table = {"train": data.train, "test": data.test}[split]
    if not table.files:
        raise UserError(f"{folder} has no {split} images: no such file: {table.place}")
    size = min(ROWS_PER_SHARD, table.num_rows)
    samples = renumbered(_samples(table, data.classes, of=f"{data.name}/{split}"), size=size)
    with blaming(f"{table.place}: "):
        return write_shards(samples, output, size=size, more=NO_COLUMNS, from_set=data.name, split=split)


def _samples(table: ImageTable, classes: list[str], *, of: str) -> Iterator[Sample]:
    """Images of a class in their order; those of no class are left out."""
    for number, (encoded, label) in enumerate(zip(table.images(), table.labels(), strict=True)):
        if label >= 0:
            with naming(f"image {number}: "):
                size = EncodedImage(encoded).size
            sha256 = hashlib.sha256(encoded).hexdigest()
            image = StoredImage(SUCCESS, encoded=encoded, size=size, original_size=size, sha256=sha256)
            yield Sample("", f"{of}/{number}", [classes[label]], image)
