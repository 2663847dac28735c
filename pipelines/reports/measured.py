"""A model that was measured, wherever that is known from: what reports are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.evaluation.evaluate import EvaluationManifest, outcomes_of
from pipelines.evaluation.measured_model import MeasuredModel
from vlp.metrics.outcomes import Outcomes


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model, with what became of single items."""

    model: MeasuredModel
    method: str
    """By which the report calls what it was trained by."""
    outcomes: Mapping[str, Outcomes]
    """By `set/` and the first part of the names of metrics."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What guessing gives, by `set/metric`."""
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Group of sets -> set -> the number that counts of it."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Set -> names of its classes."""
    origin: str = ""
    """Where it was found: the folder of its pipeline, the experiment of its run."""
    id: str = ""
    """That no other has at its origin."""
    seconds: float | None = None
    """Of training: steps times the time of one; 0 of a network that was not trained, None where no steps were
    timed."""
    link: str = ""
    """Address of its page."""
    pictures: Mapping[str, Path] = field(default_factory=dict)
    """What there is to look at, by kind: masks, reconstructions, `text_to_image of SET`."""


def measured_in(folder: Path) -> Measured:
    """The model of an evaluation's folder.

    Raises:
        FileNotFoundError: it is not one of a finished evaluation.
        ValueError: a file of it is broken.
    """
    manifest = EvaluationManifest.read(folder)
    return Measured(
        model=manifest.model,
        method=manifest.model.method,
        outcomes=outcomes_of(folder),
        chance=manifest.chance,
        groups=manifest.main_metrics,
        classes=manifest.classes,
        origin=folder.name,
        id=folder.name,
        pictures=pictures_in(folder / "pictures"),
    )


def pictures_in(folder: Path) -> dict[str, Path]:
    """Pictures of a folder, by what they show."""
    return {file.stem.replace("-", " "): file for file in sorted(folder.glob("*.png"))}


def with_own_names(found: Sequence[Measured]) -> list[Measured]:
    """Models of several origins, of which no two of one method and seed are called alike.

    Where they would be, the origin is added, and the id where that is alike too.
    """
    for name in (_method, _method_and_origin, _method_and_id):
        named = [replace(one, method=name(one)) for one in found]
        if len({(one.method, one.model.seed) for one in named}) == len(named):
            return named
    return [one for place, one in enumerate(named) if one not in named[:place]]


def _method(one: Measured) -> str:
    return one.method


def _method_and_origin(one: Measured) -> str:
    return f"{one.method} ({one.origin})"


def _method_and_id(one: Measured) -> str:
    return f"{one.method} ({one.id})"
