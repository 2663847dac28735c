"""Karpathy's splits of COCO, Flickr30k and Flickr8k: a JSON file of `images`, and a folder of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlp.layouts.layout import LAYOUTS, Captioned, Layout, examples_of, folder_of, read_json


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class Karpathy(Layout):
    """Images of a split with all their captions, in the order of the file."""

    name: Literal["karpathy"] = "karpathy"
    annotations: Path
    """Such as dataset_flickr30k.json."""
    images: Path
    """Folder of the images, or of COCO's folders of them."""
    split: str = "test"
    """Which images are taken: train, val, test, or restval of COCO."""

    def read(self) -> Captioned:
        folder, content = folder_of(self.images, "images"), read_json(self.annotations, "annotations")
        try:
            rows = [_row(one) for one in content["images"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"annotations: {self.annotations} is not of Karpathy's form: it lacks {error}"
            ) from error
        pairs = [(folder / file, captions) for file, split, captions in rows if split == self.split]
        if not pairs:
            splits = ", ".join(sorted({split for _, split, _ in rows}))
            raise ValueError(f"split is {self.split!r}; {self.annotations} has {splits}")
        return Captioned(examples_of(folder, pairs))


def _row(one: Mapping[str, Any]) -> tuple[Path, str, list[str]]:
    """The file of an image, its split and its captions."""
    file = Path(one.get("filepath", "")) / one["filename"]
    return file, one["split"], [sentence["raw"] for sentence in one["sentences"]]
