"""ImageNet and its test sets: folders named by WordNet ids (-A, -O, -R, -Sketch too) or by numbers (-V2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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


@LAYOUTS.register
@dataclass(frozen=True, kw_only=True)
class ImageNet(Layout):
    """Images by the indices of ImageNet's classes; where there are folders of some classes alone, as in -A
    and -R, an image is of one of these, and is not taken for another."""

    name: Literal["imagenet"] = "imagenet"
    folder: Path
    """Folder of a folder of each class: n01440764, ... or 0, ... 999."""
    train: Path | None = None
    """The same of training images; None for none."""
    outside: Path | None = None
    """Folder of images of no class, for ImageNet-O's measure of doubt; None for none."""
    synsets: Path
    """File of the WordNet ids of all classes in the order of their indices, one a line."""
    names: Path
    """JSON file of `classes`, their names in the same order, and `templates`."""

    def read(self) -> Labelled:
        synsets = self._synsets()
        indices = {synset: index for index, synset in enumerate(synsets)}
        indices |= {str(index): index for index in range(len(synsets))}
        test = _labels(folder_of(self.folder, "folder"), indices, "folder")
        meta: dict[str, Any] = read_names(self.names, synsets)
        if len(among := sorted(set(test.values()))) < len(synsets):
            meta["among"] = among
        splits = {"test": self._tests(test)}
        if self.train is not None:
            folder_of(self.train, "train")
            splits = {"train": _examples(self.train, _labels(self.train, indices, "train")), **splits}
        return Labelled(splits, meta)

    def _tests(self, labels: dict[Path, int]) -> Iterator[Example]:
        yield from _examples(self.folder, labels)
        if self.outside is not None:
            folder = folder_of(self.outside, "outside")
            yield from examples_of(folder, ((file, -1) for file in images_in(folder)))

    def _synsets(self) -> list[str]:
        if not self.synsets.is_file():
            raise ValueError(f"synsets: no such file: {self.synsets}")
        return [line.split()[0] for line in self.synsets.read_text().splitlines() if line.strip()]


def _labels(folder: Path, indices: dict[str, int], setting: str) -> dict[Path, int]:
    """The class of each folder in a folder."""
    folders = sorted(one for one in folder.iterdir() if one.is_dir())
    if not folders:
        raise ValueError(f"{setting}: {folder} has no folders of classes")
    for one in folders:
        if one.name not in indices:
            raise ValueError(f"{setting}: {one} is neither a WordNet id of synsets nor the number of a class")
    return {one: indices[one.name] for one in folders}


def _examples(folder: Path, labels: dict[Path, int]) -> Iterator[Example]:
    return examples_of(folder, ((file, label) for one, label in labels.items() for file in images_in(one)))
