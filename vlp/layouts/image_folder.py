"""A folder of each class, as torchvision's ImageFolder and timm read them: train/cat/1.jpg, val/dog/2.jpg."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlp.layouts.layout import (
    LAYOUTS,
    Example,
    Labelled,
    Layout,
    examples_of,
    folder_of,
    images_in,
    read_names,
)

TESTS = ("test", "val", "validation")


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class ImageFolder(Layout):
    """A folder of train/ and test/ (or val/, validation/), each with a folder of each class; or of classes
    alone, which then are all tested on."""

    name: Literal["image_folder"] = "image_folder"
    folder: Path
    """Where they are."""
    names: Path | None = None
    """JSON file of `classes`, in the order of their folders' names, and perhaps `templates`; None calls
    classes as their folders."""

    def read(self) -> Labelled:
        places = self._places()
        found = sorted({one.name for place in places.values() for one in _folders(place)})
        if not found:
            raise ValueError(f"folder: {self.folder} has no folders of classes")
        labels = {name: label for label, name in enumerate(found)}
        splits = {split: _examples(place, labels) for split, place in places.items()}
        return Labelled(splits, read_names(self.names, found))

    def _places(self) -> dict[str, Path]:
        folder = folder_of(self.folder, "folder")
        tests = [folder / name for name in TESTS if (folder / name).is_dir()]
        if not tests and (folder / "train").is_dir():
            raise ValueError(f"folder: {folder} has a folder train, but none of {', '.join(TESTS)}")
        trains = {"train": folder / "train"} if tests and (folder / "train").is_dir() else {}
        return {**trains, "test": tests[0] if tests else folder}


def _folders(place: Path) -> list[Path]:
    return [one for one in place.iterdir() if one.is_dir()]


def _examples(place: Path, labels: dict[str, int]) -> Iterator[Example]:
    pairs = ((file, labels[one.name]) for one in sorted(_folders(place)) for file in images_in(one))
    return examples_of(place, pairs)
