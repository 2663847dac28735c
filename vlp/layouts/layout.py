"""What a layout of images is: it reads examples, which `vlp convert-set` writes as an evaluation set."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlp.core.config import StrictConfig
from vlp.core.registry import Registry

LAYOUTS = Registry()
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


class Example(NamedTuple):
    """An image with what is known about it."""

    image: bytes
    """Encoded."""
    label: Any
    """Index of its class, or a list of captions."""
    filename: str


class Labelled(NamedTuple):
    """A set of images of classes."""

    splits: Mapping[str, Iterable[Example]]
    """`test`, and perhaps `train`."""
    meta: Mapping[str, Any]
    """What stands in meta.json: `classes`, perhaps `templates` and `among`."""


class Captioned(NamedTuple):
    """A set of images with captions."""

    examples: Iterable[Example]


@dataclass(frozen=True, kw_only=True)
class Layout(ABC, StrictConfig):
    """One way of keeping images; its fields say where they are, and what of them is taken."""

    name: str
    """Which layout it is."""

    @abstractmethod
    def read(self) -> Labelled | Captioned:
        """The set; images are read as they are gone through.

        Raises:
            ValueError: something is not of the layout; names the setting and the file. Going through examples
                raises it, too.
        """


def folder_of(path: Path, setting: str) -> Path:
    """A folder that has to be there; a ValueError that names the setting where it is not."""
    if not path.is_dir():
        raise ValueError(f"{setting}: {path} is not a folder")
    return path


def read_json(file: Path, setting: str) -> Any:
    """What a JSON file holds; a ValueError that names the setting where there is none."""
    if not file.is_file():
        raise ValueError(f"{setting}: no such file: {file}")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{setting}: {file} is not JSON: {error}") from error


def read_names(file: Path | None, found: Sequence[str]) -> dict[str, Any]:
    """Names of classes in the order of their indices, and templates, of a JSON file; None for those found.

    Raises:
        ValueError: it has another number of them.
    """
    if file is None:
        return {"classes": list(found)}
    names = read_json(file, "names")
    classes = names.get("classes") if isinstance(names, dict) else None
    if not isinstance(classes, list) or len(classes) != len(found):
        number = len(classes) if isinstance(classes, list) else "no"
        raise ValueError(f"names: {file} has {number} `classes`, and there are {len(found)}")
    return {key: names[key] for key in ("classes", "templates") if key in names}


def images_in(folder: Path) -> list[Path]:
    """Images in a folder and those below it, in the order of their paths."""
    files = (file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    return sorted(files)


def examples_of(folder: Path, labels: Iterable[tuple[Path, Any]]) -> Iterator[Example]:
    """Files of a folder with their labels, each read when it is asked for.

    Raises:
        ValueError: a file is missing or empty; names it.
    """
    for file, label in labels:
        image = file.read_bytes() if file.is_file() else b""
        if not image:
            raise ValueError(f"{file} is missing or empty")
        yield Example(image, label, file.relative_to(folder).as_posix())
