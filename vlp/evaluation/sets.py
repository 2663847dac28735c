"""What models are measured on: named sets of images, each of one kind."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from vlp.data.image_files import Identify
from vlp.data.image_tables import ImageTable
from vlp.metrics.choice import Choice
from vlp.metrics.zero_shot import check_templates
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder


@dataclass(frozen=True)
class EvaluationSet(ABC):
    """Images, and what is known about them, by which models are measured."""

    kind: ClassVar[str]
    """The key of such sets under `evaluation`."""
    about: ClassVar[str | None] = None
    """Name of a file of its folder that says more of it, in JSON."""
    name: str
    """The first part of the names of its metrics."""
    path: Path | Folder
    """Where it lies; a URI such as s3://bucket/sets/cifar10, opened, for an object store."""

    @property
    def folder(self) -> Folder:
        """The place as a folder, of this machine or another."""
        return open_folder(self.path)

    @property
    def key(self) -> str:
        """Where it is set, under `evaluation`."""
        return f"{self.kind}.{self.name}"

    @property
    @abstractmethod
    def tables(self) -> tuple[ImageTable, ...]:
        """Its images; those of the first are the ones to look at."""

    @property
    def sources(self) -> list[Folder]:
        """What it is made of: files, or folders of them."""
        tables = [open_folder(table.place) for table in self.tables]
        return [*tables, *([] if self.about is None else [self.folder / self.about])]

    @property
    def is_there(self) -> bool:
        """Whether something lies where it has to be."""
        return any(table.files for table in self.tables)

    def digest(self, identify: Identify) -> str:
        """What tells its content: the same for the same files, wherever they lie."""
        parts = [file.identity(identify) for table in self.tables for file in table.files]
        if self.about is not None:
            parts.append(identify(self.folder, self.about))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Items that are judged."""
        return self.tables[0].num_rows

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Texts of the set's own that decide a result: what they are, and they."""
        return {}

    @classmethod
    def lying_in(cls, folder: Folder, name: str) -> Self:
        """The set of a name in a folder of sets."""
        return cls(name, folder / name)

    def table(self, name: str, column: str) -> ImageTable:
        """Images of the set's folder: NAME.parquet, or the folder NAME of such files, or of shards."""
        return ImageTable(self.folder / _place(self.folder, name), column)

    def check(self) -> None:
        """Raise a ValueError that names the file unless all of it is there."""
        for table in self.tables:
            table.check()
        if self.about is not None and self.about not in self.folder.names():
            raise ValueError(f"no such file: {self._about_place}")

    @property
    def _about_place(self) -> str:
        return str(self.folder / (self.about or ""))

    @cached_property
    def _about(self) -> Any:
        """What the file says; a ValueError that names it where it is not JSON."""
        try:
            return self.folder.read_json(self.about or "")
        except ValueError as error:
            raise ValueError(f"{self._about_place} is not JSON: {error}") from error


@dataclass(frozen=True)
class CaptionedImages(EvaluationSet):
    """Images with their captions: a Parquet file with the columns `image` and `captions`, a folder of such
    files, or of shards."""

    kind = "retrieval"

    @classmethod
    def lying_in(cls, folder: Folder, name: str) -> Self:
        return cls(name, folder / _place(folder, name))

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.images,)

    @cached_property
    def images(self) -> ImageTable:
        """Images, each with a list of captions."""
        return ImageTable(self.path, "captions")


@dataclass(frozen=True)
class ImagesToCaption(EvaluationSet):
    """Images with their captions, to learn from and to be captioned.

    A folder of train.parquet and test.parquet, each with the columns `image` and `captions`.
    """

    kind = "captioning"

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.test, self.train)

    @cached_property
    def train(self) -> ImageTable:
        """Images to learn from, each with a list of captions."""
        return self.table("train", "captions")

    @cached_property
    def test(self) -> ImageTable:
        """Images to be captioned, each with a list of captions."""
        return self.table("test", "captions")

    def check(self) -> None:
        super().check()
        for table in self.tables:
            captions = table.labels()
            if not captions or not all(captions):
                raise ValueError(f"{table.place} needs an image or more, each with a caption or more")


@dataclass(frozen=True)
class NamedImages(EvaluationSet):
    """Images that a file says something about by their names: a folder of images.parquet, with the columns
    `image` and `filename`, and of that file."""

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.images,)

    @cached_property
    def images(self) -> ImageTable:
        """The images, each with its name."""
        return self.table("images", "filename")

    def places(self) -> dict[str, int]:
        """The place of each image, by its name."""
        return {name: place for place, name in enumerate(self.images.labels())}


@dataclass(frozen=True)
class ImagesWithChoices(NamedImages):
    """Images, each with captions of which one is right, or several images with a caption each.

    A folder of images.parquet with the columns `image` and `filename`, and of choices.json, in SugarCrepe's
    form: part -> number -> `filename`, `caption` and `negative_caption`, one or a list; SugarCrepe++'s have
    `caption2` besides, which says the same. Winoground's choices have `filenames` and as many `captions`.
    """

    kind = "choice"
    about = "choices.json"

    @property
    def size(self) -> int:
        return len(self.choices[1])

    @cached_property
    def choices(self) -> tuple[list[str], list[Choice]]:
        """All captions, and which of them, by their positions, each choice is between.

        Raises:
            ValueError: a choice is not of the form, or its image is not there; names the file and the choice.
        """
        places = self.places()
        captions: dict[str, int] = {}
        choices = []
        for part, items in self._about.items():
            for number, item in items.items():
                try:
                    names, texts = _names_and_captions(item)
                    images = [places[name] for name in names]
                except (KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self._about_place}: {part}.{number} lacks {error}, in itself or among the images"
                    ) from error
                alike = [item["caption2"]] if "caption2" in item else []
                of_choice, of_alike = (
                    [captions.setdefault(text, len(captions)) for text in some] for some in (texts, alike)
                )
                choices.append(Choice(images, of_choice, part, of_alike))
        if len({(len(choice.images), len(choice.paraphrases)) for choice in choices}) != 1:
            raise ValueError(
                f"{self._about_place} needs one choice or more, all of as many images and right captions"
            )
        return list(captions), choices

    def check(self) -> None:
        super().check()
        if not isinstance(self._about, dict):
            raise ValueError(f"{self._about_place} does not name the parts of the set")
        self.choices  # noqa: B018  # raises where a choice is broken


def _names_and_captions(item: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The images' names, and the captions, those of the images first."""
    if "filenames" in item:
        return item["filenames"], item["captions"]
    others = item["negative_caption"]
    return [item["filename"]], [item["caption"], *([others] if isinstance(others, str) else others)]


class JudgedPair(NamedTuple):
    """An image and a caption, with what people thought of them."""

    image: int
    """Its place among the images."""
    caption: str
    judgements: list[float]
    """Higher for a caption that fits better: one of each person, or the share of people who said yes."""


@dataclass(frozen=True)
class JudgedCaptions(NamedImages):
    """Pairs of an image and a caption that people judged, as Flickr8k-Expert and CrowdFlower.

    A folder of images.parquet with the columns `image` and `filename`, and of judgements.json: a list of
    `filename`, `caption` and `judgements`, numbers that are higher for a caption that fits better.
    """

    kind = "judgement"
    about = "judgements.json"

    @property
    def size(self) -> int:
        return sum(len(pair.judgements) for pair in self.pairs)

    @cached_property
    def pairs(self) -> list[JudgedPair]:
        """Every pair that was judged.

        Raises:
            ValueError: one is not of the form, or its image is not there; names the file and the pair.
        """
        places = self.places()
        pairs = []
        for number, item in enumerate(self._about):
            try:
                judgements = [float(one) for one in item["judgements"]]
                pairs.append(JudgedPair(places[item["filename"]], item["caption"], judgements))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self._about_place}: pair {number} lacks {error}, in itself or among the images"
                ) from error
        return pairs

    def check(self) -> None:
        super().check()
        if not self.size:
            raise ValueError(f"{self._about_place} has no judgement")


@dataclass(frozen=True)
class LabelledImages(EvaluationSet):
    """Images with their classes, for training, unless there are none of these, and for testing.

    A folder of train.parquet and test.parquet with the columns `image` and `label`, and of meta.json with
    `classes`, their names, and `templates`, prompts with `{}` where the name goes. Where `among` lists
    indices of classes, a test image is of one of these, and is not taken for another; its label is -1 where
    it shows none of the classes at all.
    """

    kind = "classification"
    about = "meta.json"

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.test, self.train) if self.has_train else (self.test,)

    @property
    def has_train(self) -> bool:
        """Whether there are images to learn from; taken for granted of a set that is still to be made."""
        return bool(self.train.files) or not self.test.files

    @cached_property
    def train(self) -> ImageTable:
        """Images to learn from, each with the index of its class."""
        return self.table("train", "label")

    @cached_property
    def test(self) -> ImageTable:
        """Images to be classified, each with the index of its class."""
        return self.table("test", "label")

    @property
    def classes(self) -> list[str]:
        """Names of the K classes, in the order of their indices."""
        return self._about["classes"]

    @property
    def among(self) -> list[int] | None:
        """Indices of the classes that a test image may be of; None for all."""
        return self._about.get("among")

    @property
    def templates(self) -> list[str]:
        """Prompts, with `{}` where the name of a class goes."""
        return self._about.get("templates", ["a photo of a {}."])

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"classes": self.classes, "templates": self.templates}

    def check(self) -> None:
        super().check()
        if not isinstance(self._about, dict) or not self._about.get("classes"):
            raise ValueError(f"{self._about_place} does not name the classes of the set under `classes`")
        check_templates(self.templates)
        every = set(range(len(self.classes)))
        among = every if self.among is None else set(self.among)
        if not among or not among <= every:
            raise ValueError(f"{self._about_place}: `among` must be indices of the {len(every)} classes")
        for table in self.tables:
            allowed = every if table == self.train else among | {-1}
            if others := set(table.labels()) - allowed:
                raise ValueError(
                    f"{table.place} has the label {min(others)}, of no class that an image may be of; "
                    f"{self._about_place} has {len(every)} classes"
                )


def chance_of(num_classes: int) -> Mapping[str, float]:
    """What guessing one of some classes gives, by the last parts of the names of metrics."""
    ranks = {f"acc{k}": k / num_classes for k in (1, 5) if k == 1 or k < num_classes}
    return ranks | {"mean_per_class_recall": 1 / num_classes}


def _place(folder: Folder, name: str) -> str:
    """What images of a name are called in a folder: NAME.parquet, a file or a folder, before NAME."""
    folders = folder.folders()
    is_short = name in folders and f"{name}.parquet" not in folders | folder.names()
    return name if is_short else f"{name}.parquet"


KINDS: Mapping[str, type[EvaluationSet]] = {
    one.kind: one
    for one in (CaptionedImages, LabelledImages, ImagesWithChoices, ImagesToCaption, JudgedCaptions)
}
"""The sets that there are, by their keys under `evaluation`."""
