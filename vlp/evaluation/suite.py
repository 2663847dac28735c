"""Suites: what several sets have to be, so that numbers about them are those that others report."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from vlp.core.config import AtLeast, StrictConfig, Within, naming
from vlp.evaluation.sets import KINDS, EvaluationSet
from vlp.shards.storage.address import AnyFolder, open_folder

CHANCE_TOLERANCE = 1e-4  # files round what guessing gives


def names_digest(names: Sequence[str]) -> str:
    """Identity of names in their order: the first 16 hex digits of the SHA-256 of them, one a line."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class SuiteSet(StrictConfig):
    """What a set of a suite has to be."""

    kind: Literal["retrieval", "classification", "choice", "captioning", "judgement"]
    """Of what form it is, as the keys of `evaluation`."""
    size: Annotated[int, AtLeast(1)]
    """Items that are judged: images of retrieval, test images, choices, judgements."""
    main_metric: str
    """The last part of the name of the number that counts, such as acc1; means of groups are of it."""
    chance: Annotated[float, Within(0, 1)] | None = None
    """What guessing gives of it."""
    groups: tuple[str, ...] = ()
    """Groups of sets whose means it is in."""
    classes: str | None = None
    """Digest of the names of its classes, in their order."""
    templates: str | None = None
    """Digest of its templates, in their order."""

    def check(self, data: EvaluationSet) -> None:
        """Raise a ValueError, of one line, unless a set is this one."""
        if data.kind != self.kind:
            raise ValueError(f"its kind is {self.kind}, and {data.path} is given under {data.kind}")
        if data.size != self.size:
            raise ValueError(
                f"it has {self.size} items, and {data.path} has {data.size}: make it again whole"
            )
        for what in ("classes", "templates"):
            expected, names = getattr(self, what), data.names.get(what, ())
            if expected is not None and names_digest(names) != expected:
                raise ValueError(
                    f"its {what} have the digest {expected}, and those of {data.path}, "
                    f"{len(names)} in number, have {names_digest(names)}: other names, or another order"
                )

    def check_chance(self, found: Mapping[str, float]) -> None:
        """Raise a ValueError unless guessing gives what it has to, by the names of metrics."""
        for metric, value in found.items():
            is_main = metric.rpartition("/")[2] == self.main_metric
            if self.chance is not None and is_main and abs(value - self.chance) > CHANCE_TOLERANCE:
                raise ValueError(
                    f"guessing gives {self.chance} of {metric}, and {value:.6f} of the set found"
                )


@dataclass(frozen=True, kw_only=True)
class Suite(StrictConfig):
    """Several sets, in one folder, and what each of them has to be."""

    name: str
    """By which messages speak of it."""
    folder: AnyFolder = open_folder(".")
    """Where the sets lie, each by its name: a folder, or NAME.parquet for retrieval, also in an object store.
    A set that is also named under its kind of `evaluation` is taken from there."""
    sets: Mapping[str, SuiteSet]
    """Set's name, the first part of its metrics -> what it has to be."""

    @property
    def places(self) -> dict[str, EvaluationSet]:
        """Where each set would lie in the folder."""
        return {name: KINDS[one.kind].lying_in(self.folder, name) for name, one in self.sets.items()}

    @property
    def groups(self) -> dict[str, dict[str, str]]:
        """Group -> set -> its main metric."""
        names = dict.fromkeys(group for one in self.sets.values() for group in one.groups)
        return {
            group: {name: one.main_metric for name, one in self.sets.items() if group in one.groups}
            for group in names
        }

    def missing(self, sets: Iterable[EvaluationSet]) -> list[str]:
        """Names of the sets of the suite that are not among some."""
        there = {data.name for data in sets}
        return [name for name in self.sets if name not in there]

    def check(self, sets: Sequence[EvaluationSet]) -> None:
        """Raise a ValueError that names the set unless those of the suite that are there are what they have
        to be, and one is."""
        if len(self.missing(sets)) == len(self.sets):
            places = ", ".join(str(data.path) for data in self.places.values())
            raise ValueError(f"folder: none of the sets of {self.name} is there: {places}")
        for data in sets:
            if data.name in self.sets:
                with naming(f"sets.{data.name}: "):
                    self.sets[data.name].check(data)
