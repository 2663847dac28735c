"""Tables of encoded images of any size, each image with what is known about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vlp.data.image_files import Identify, ImageFile, image_files
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

PART_ROWS = 2048
"""Images that are worked on together, at most: half a minute on a CPU core, which is what a restart loses."""


class Part(NamedTuple):
    """Some images that follow one another in a file."""

    file: ImageFile
    rows: range

    def __str__(self) -> str:
        return str(self.file)

    def images(self) -> Iterator[bytes]:
        """The images, read a few at a time."""
        return self.file.images(self.rows)

    def identity(self, identify: Identify) -> str:
        """What tells the content of the images, wherever they lie."""
        return f"{self.file.identity(identify)} {self.rows.start} {self.rows.stop}"


@dataclass(frozen=True)
class ImageTable:
    """Images, and what is known about them: a Parquet file with a column `image` and another, a folder of
    such files, or a folder of shards whose index has the other column; in an object store, too."""

    place: Path | Folder
    column: str
    """The other column: class indices, or lists of captions."""

    def __str__(self) -> str:
        return str(self.place)

    @cached_property
    def files(self) -> list[ImageFile]:
        """What it is made of, in order; nothing where there is no such place."""
        return image_files(open_folder(self.place), captioned=self.column == "captions")

    def check(self) -> None:
        """Raise a ValueError that names the file unless there are some, and all have both columns."""
        if not self.files:
            raise ValueError(f"no such file: {self.place}")
        for file in self.files:
            names = file.columns
            if not {"image", self.column} <= set(names):
                raise ValueError(
                    f"{file} lacks the columns image and {self.column}; it has {', '.join(names)}"
                )

    @property
    def num_rows(self) -> int:
        """How many images it has."""
        return sum(file.num_rows for file in self.files)

    def parts(self) -> list[Part]:
        """All images in order, in parts of much the same size; no part is of two files."""
        return [part for file in self.files for part in _parts(file)]

    def images(self) -> Iterator[bytes]:
        """Every image, read a few at a time."""
        return (image for part in self.parts() for image in part.images())

    def images_at(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Some images, read a few at a time.

        Args:
            rows: their places, ascending.
        """
        start, wanted = 0, set(rows)
        for part in self.parts():
            places = range(start, start + len(part.rows))
            start = places.stop
            if not wanted.isdisjoint(places):
                pairs = zip(places, part.images(), strict=True)
                yield from (image for place, image in pairs if place in wanted)

    def first_images(self, count: int) -> list[bytes]:
        """As many images from the beginning, or all where there are fewer."""
        return list(islice(self.images(), count))

    def labels(self) -> list[Any]:
        """What is known about every image."""
        return [label for file in self.files for label in file.labels(self.column)]


def _parts(file: ImageFile) -> Iterator[Part]:
    count = -(-file.num_rows // PART_ROWS)
    for number in range(count):
        rows = range(file.num_rows * number // count, file.num_rows * (number + 1) // count)
        yield Part(file, rows)
