"""Image data sets of the Hugging Face Hub: Parquet files whose schema names the classes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.layouts.layout import LAYOUTS, Captioned, Example, Labelled, Layout, folder_of, read_names

ROWS_AT_ONCE = 64
SPLITS = {"train": ("train",), "test": ("test", "validation", "val", "valid")}


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class HuggingFace(Layout):
    """A folder of files such as train-00000-of-00002.parquet, with a column of images and one of classes; or
    of captions, where `captions` names it."""

    name: Literal["hugging_face"] = "hugging_face"
    folder: Path
    """Where the files are, here or in folders below."""
    image: str = "image"
    """Column of the images."""
    label: str | None = None
    """Column of the classes; None is the one of labels that the schema has."""
    captions: str | None = None
    """Column of captions, texts or lists of texts; None for a set of classes."""
    split: str | None = None
    """Whose files are tested on; None is test, validation, val or valid, the first that is there."""
    names: Path | None = None
    """JSON file of `classes`, in the order of their indices, and perhaps `templates`; None takes the
    schema's."""

    def read(self) -> Labelled | Captioned:
        files = self._files()
        tests = SPLITS["test"] if self.split is None else (self.split,)
        test = next((files[split] for split in tests if split in files), None)
        if test is None:
            there = ", ".join(files) or "no files"
            raise ValueError(f"split: {self.folder} has none of {', '.join(tests)}; it has {there}")
        if self.captions is not None:
            return Captioned(_examples(test, self.image, self.captions, _texts))
        label, classes = self._classes(test[0])
        splits = {"train": files["train"], "test": test} if "train" in files else {"test": test}
        read = {split: _examples(several, self.image, label, int) for split, several in splits.items()}
        return Labelled(read, read_names(self.names, classes))

    def _files(self) -> dict[str, list[Path]]:
        """Files by their split."""
        found: dict[str, list[Path]] = {}
        for file in sorted(folder_of(self.folder, "folder").rglob("*.parquet")):
            split = re.split(r"-\d|\.", file.name)[0] if "-" in file.name else file.stem
            found.setdefault(file.parent.name if split.isdigit() else split, []).append(file)
        return found

    def _classes(self, file: Path) -> tuple[str, Sequence[str]]:
        """The column of labels, and the names of the classes."""
        features = _features(file)
        labels = {
            key: list(feature["names"])
            for key, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
        label = self.label or next(iter(labels), None)
        if label in labels:
            return label, labels[label]
        asked, there = self.label or "of class labels", ", ".join(labels) or "none"
        raise ValueError(
            f"label: {file} has no column {asked} of which the schema names the classes; it has {there}"
        )


def _features(file: Path) -> Mapping[str, Any]:
    """What the schema says of the columns."""
    described = (pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    return json.loads(described).get("info", {}).get("features", {})


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _examples(files: Sequence[Path], image: str, label: str, read: Any) -> Iterator[Example]:
    for file in files:
        if missing := {image, label} - set(pq.read_schema(file).names):
            raise ValueError(f"{file} has no column {', '.join(sorted(missing))}")
        with pq.ParquetFile(file) as rows:
            for batch in rows.iter_batches(ROWS_AT_ONCE, columns=[image, label]):
                yield from _of_batch(file, batch, image, label, read)


def _of_batch(file: Path, batch: pa.RecordBatch, image: str, label: str, read: Any) -> Iterator[Example]:
    for row in batch.to_pylist():
        picture = row[image]
        content = picture["bytes"] if isinstance(picture, dict) else picture
        if not content:
            raise ValueError(f"{file} has an image that is not in it: {picture}")
        yield Example(content, read(row[label]), (isinstance(picture, dict) and picture.get("path")) or "")
