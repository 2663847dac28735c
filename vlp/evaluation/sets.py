"""What models are measured on: named sets of images, each of one kind."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from vlp.data.image_tables import ImageTable
from vlp.metrics.choice import Choice
from vlp.metrics.zero_shot import check_templates


@dataclass(frozen=True)
class EvaluationSet(ABC):
    """Images, and what is known about them, by which models are measured."""

    kind: ClassVar[str]
    """The key of such sets under `evaluation`."""
    name: str
    """The first part of the names of its metrics."""
    path: Path

    @property
    def key(self) -> str:
        """Where it is set, under `evaluation`."""
        return f"{self.kind}.{self.name}"

    @property
    @abstractmethod
    def tables(self) -> tuple[ImageTable, ...]:
        """Its images; those of the first are the ones to look at."""

    @property
    def files(self) -> list[Path]:
        """Every file that it is made of."""
        return [table.file for table in self.tables]

    @property
    def size(self) -> int:
        """Items that are judged."""
        return self.tables[0].num_rows

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Texts of the set's own that decide a result: what they are, and they."""
        return {}

    @classmethod
    def lying_in(cls, folder: Path, name: str) -> Self:
        """The set of a name in a folder of sets."""
        return cls(name, folder / name)

    def check(self) -> None:
        """Raise a ValueError that names the file unless all of it is there."""
        for table in self.tables:
            table.check()


@dataclass(frozen=True)
class CaptionedImages(EvaluationSet):
    """Images with their captions: a Parquet file with the columns `image` and `captions`."""

    kind = "retrieval"

    @classmethod
    def lying_in(cls, folder: Path, name: str) -> Self:
        return cls(name, folder / f"{name}.parquet")

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.images,)

    @property
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

    @property
    def train(self) -> ImageTable:
        """Images to learn from, each with a list of captions."""
        return ImageTable(self.path / "train.parquet", "captions")

    @property
    def test(self) -> ImageTable:
        """Images to be captioned, each with a list of captions."""
        return ImageTable(self.path / "test.parquet", "captions")

    def check(self) -> None:
        super().check()
        for table in self.tables:
            captions = table.labels()
            if not captions or not all(captions):
                raise ValueError(f"{table.file} needs an image or more, each with a caption or more")


@dataclass(frozen=True)
class NamedImages(EvaluationSet):
    """Images that a file says something about by their names: a folder of images.parquet, with the columns
    `image` and `filename`, and of that file."""

    about: ClassVar[str]
    """Name of the file, in JSON."""

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.images,)

    @property
    def images(self) -> ImageTable:
        """The images, each with its name."""
        return ImageTable(self.path / "images.parquet", "filename")

    @property
    def about_file(self) -> Path:
        """What is said about them."""
        return self.path / self.about

    @property
    def files(self) -> list[Path]:
        return [self.images.file, self.about_file]

    def places(self) -> dict[str, int]:
        """The place of each image, by its name."""
        return {name: place for place, name in enumerate(self.images.labels())}

    def check(self) -> None:
        super().check()
        if not self.about_file.is_file():
            raise ValueError(f"no such file: {self.about_file}")


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
        for part, items in read_json(self.about_file).items():
            for number, item in items.items():
                try:
                    names, texts = _names_and_captions(item)
                    images = [places[name] for name in names]
                except (KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self.about_file}: {part}.{number} lacks {error}, in itself or among the images"
                    ) from error
                alike = [item["caption2"]] if "caption2" in item else []
                of_choice, of_alike = (
                    [captions.setdefault(text, len(captions)) for text in some] for some in (texts, alike)
                )
                choices.append(Choice(images, of_choice, part, of_alike))
        if len({(len(choice.images), len(choice.paraphrases)) for choice in choices}) != 1:
            raise ValueError(
                f"{self.about_file} needs one choice or more, all of as many images and right captions"
            )
        return list(captions), choices

    def check(self) -> None:
        super().check()
        if not isinstance(read_json(self.about_file), dict):
            raise ValueError(f"{self.about_file} does not name the parts of the set")
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
        for number, item in enumerate(read_json(self.about_file)):
            try:
                judgements = [float(one) for one in item["judgements"]]
                pairs.append(JudgedPair(places[item["filename"]], item["caption"], judgements))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.about_file}: pair {number} lacks {error}, in itself or among the images"
                ) from error
        return pairs

    def check(self) -> None:
        super().check()
        if not self.size:
            raise ValueError(f"{self.about_file} has no judgement")


@dataclass(frozen=True)
class LabelledImages(EvaluationSet):
    """Images with their classes, for training, unless there are none of these, and for testing.

    A folder of train.parquet and test.parquet with the columns `image` and `label`, and of meta.json with
    `classes`, their names, and `templates`, prompts with `{}` where the name goes. Where `among` lists
    indices of classes, a test image is of one of these, and is not taken for another; its label is -1 where
    it shows none of the classes at all.
    """

    kind = "classification"

    @property
    def tables(self) -> tuple[ImageTable, ...]:
        return (self.test, self.train) if self.has_train else (self.test,)

    @property
    def has_train(self) -> bool:
        """Whether there are images to learn from; taken for granted of a set that is still to be made."""
        return self.train.file.is_file() or not self.test.file.is_file()

    @property
    def train(self) -> ImageTable:
        """Images to learn from, each with the index of its class."""
        return ImageTable(self.path / "train.parquet", "label")

    @property
    def test(self) -> ImageTable:
        """Images to be classified, each with the index of its class."""
        return ImageTable(self.path / "test.parquet", "label")

    @property
    def classes(self) -> list[str]:
        """Names of the K classes, in the order of their indices."""
        return self._meta["classes"]

    @property
    def among(self) -> list[int] | None:
        """Indices of the classes that a test image may be of; None for all."""
        return self._meta.get("among")

    @property
    def templates(self) -> list[str]:
        """Prompts, with `{}` where the name of a class goes."""
        return self._meta.get("templates", ["a photo of a {}."])

    @property
    def files(self) -> list[Path]:
        return [*(table.file for table in reversed(self.tables)), self._meta_file]

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"classes": self.classes, "templates": self.templates}

    def check(self) -> None:
        super().check()
        if not self._meta_file.is_file():
            raise ValueError(f"no such file: {self._meta_file}")
        if not isinstance(self._meta, dict) or not self._meta.get("classes"):
            raise ValueError(f"{self._meta_file} does not name the classes of the set under `classes`")
        check_templates(self.templates)
        every = set(range(len(self.classes)))
        among = every if self.among is None else set(self.among)
        if not among or not among <= every:
            raise ValueError(f"{self._meta_file}: `among` must be indices of the {len(every)} classes")
        for table in self.tables:
            allowed = every if table == self.train else among | {-1}
            if others := set(table.labels()) - allowed:
                raise ValueError(
                    f"{table.file} has the label {min(others)}, of no class that an image may be of; "
                    f"{self._meta_file} has {len(every)} classes"
                )

    @property
    def _meta_file(self) -> Path:
        return self.path / "meta.json"

    @cached_property
    def _meta(self) -> Any:
        return read_json(self._meta_file)


def chance_of(num_classes: int) -> Mapping[str, float]:
    """What guessing one of some classes gives, by the last parts of the names of metrics."""
    ranks = {f"acc{k}": k / num_classes for k in (1, 5) if k == 1 or k < num_classes}
    return ranks | {"mean_per_class_recall": 1 / num_classes}


def read_json(file: Path) -> Any:
    """What a file holds; a ValueError that names it where it is not JSON."""
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


KINDS: Mapping[str, type[EvaluationSet]] = {
    one.kind: one
    for one in (CaptionedImages, LabelledImages, ImagesWithChoices, ImagesToCaption, JudgedCaptions)
}
"""The sets that there are, by their keys under `evaluation`."""
