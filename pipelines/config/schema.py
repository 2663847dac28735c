"""What settings a config has below it, as its annotations say."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Any, TypeVar

from vlp.core.config import annotations_of
from vlp.core.registry import ByName, EachByName

Marker = TypeVar("Marker")


class SettingsOf:
    """Marks a mapping that holds some of a config's settings: `Annotated[dict[str, Any], SettingsOf(X)]`."""

    def __init__(self, config: Any) -> None:
        self.config = config


def configs_of(hint: Any, value: Any = None) -> list[Any]:
    """Every config class that a setting may be; the one alone that a value names, where it names one."""
    if marker := marker_of(hint, SettingsOf):
        return [marker.config]
    if marker := marker_of(hint, ByName):
        name = marker.name_of(value)
        return [marker.registry[name]] if name in list(marker.registry) else [*marker.registry.values()]
    if marker := marker_of(hint, EachByName):
        return [marker.settings()]
    return [kind for kind in members_of(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def hint_below(hint: Any, key: Any, value: Any = None) -> Any:
    """The annotation of what a setting holds under a key, or at a place of a list; None for nothing."""
    for config in configs_of(hint, value):
        if key in annotations_of(config):
            return annotations_of(config)[key]
    for member in members_of(hint):
        if is_container(member, Mapping):
            return typing.get_args(member)[1]
        if is_container(member, Sequence) and isinstance(key, int):
            return typing.get_args(member)[0]
    return None


def is_container(kind: Any, of: type) -> bool:
    """Whether an annotation is a mapping, or a sequence, of something that it names."""
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, of)


def members_of(hint: Any) -> list[Any]:
    """The types that an annotation allows, without their metadata."""
    if typing.get_origin(hint) is Annotated:
        return members_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in members_of(part)]
    return [hint]


def marker_of(hint: Any, kind: type[Marker]) -> Marker | None:
    """The metadata of a kind that an annotation, or one of a union, has."""
    if typing.get_origin(hint) is Annotated:
        found = (marker for marker in hint.__metadata__ if isinstance(marker, kind))
        return next(found, None) or marker_of(typing.get_args(hint)[0], kind)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(filter(None, (marker_of(part, kind) for part in typing.get_args(hint))), None)
    return None


def dotted_keys(config: Any, values: Any) -> Iterator[str]:
    """Every key below a config class, however deep, where these values name components."""
    for name, hint in annotations_of(config).items():
        yield name
        value = values.get(name) if isinstance(values, Mapping) else None
        for below in configs_of(hint, value):
            yield from (f"{name}.{key}" for key in dotted_keys(below, value))


def similar_key(given: str, here: Iterable[str], elsewhere: Iterable[str]) -> str | None:
    """The key that a misspelt or moved one most likely stands for; None where no other is like it.

    Args:
        here: keys at the place of the given one, of which those are preferred that come first.
        elsewhere: keys that have to be more like it.
    """
    near: dict[str, tuple[float, int, float]] = {}
    for keys, least in ((here, 0.6), (elsewhere, 0.8)):
        likeness = {key: _likeness(given, key) for key in keys if key not in near}
        near |= {key: value for key, value in likeness.items() if value[0] >= least}
    return max(near, key=near.__getitem__, default=None)


def _likeness(given: str, key: str) -> tuple[float, int, float]:
    """How near two keys are, in [0, 1], by their last parts or by all words in whatever order.

    Also what decides between equally near ones: the parts that both begin with, and all letters.
    """
    last_parts = _ratio(given.rpartition(".")[2], key.rpartition(".")[2])
    beginning = takewhile(
        lambda parts: parts[0] == parts[1], zip(given.split("."), key.split("."), strict=False)
    )
    return max(last_parts, _ratio(_words(given), _words(key))), len(list(beginning)), _ratio(given, key)


def _words(key: str) -> str:
    return " ".join(sorted(re.split(r"[._]", key)))


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
