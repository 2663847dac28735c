"""What settings a config has below it, as its annotations say."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from vlp.core.config import annotations_of
from vlp.core.registry import ByName, EachByName


class SettingsOf:
    """Marks a mapping that holds some of a config's settings: `Annotated[dict[str, Any], SettingsOf(X)]`."""

    def __init__(self, config: Any) -> None:
        self.config = config


def configs_of(hint: Any, value: Any = None) -> list[Any]:
    """Every config class that a setting may be; the one alone that a value names, where it names one."""
    for marker in getattr(hint, "__metadata__", ()):
        if isinstance(marker, SettingsOf):
            return [marker.config]
        if isinstance(marker, ByName):
            name = marker.name_of(value)
            return [marker.registry[name]] if name in list(marker.registry) else [*marker.registry.values()]
        if isinstance(marker, EachByName):
            return [marker.settings()]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [config for member in _members(hint) for config in configs_of(member, value)]


def hint_below(hint: Any, key: Any, value: Any = None) -> Any:
    """The annotation of what a setting holds under a key, or at a place of a list; None for nothing."""
    for config in configs_of(hint, value):
        if key in annotations_of(config):
            return annotations_of(config)[key]
    if _is_container(hint, Mapping):
        return typing.get_args(hint)[1]
    if _is_container(hint, Sequence) and isinstance(key, int):
        return typing.get_args(hint)[0]
    found = (hint_below(member, key, value) for member in _members(hint))
    return next((below for below in found if below is not None), None)


def _is_container(hint: Any, kind: type) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, kind)


def _members(hint: Any) -> tuple[Any, ...]:
    """What a union is of, or what an annotation has metadata of."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return typing.get_args(hint)[:1]
    return typing.get_args(hint) if origin in (typing.Union, types.UnionType) else ()


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
    likeness = {key: _likeness(given, key) for key in here}
    near = {key: value for key, value in likeness.items() if value >= 0.6}
    likeness = {key: _likeness(given, key) for key in elsewhere}
    near |= {key: value for key, value in likeness.items() if value >= 0.8 and key not in near}
    return max(near, key=near.__getitem__, default=None)


def _likeness(given: str, key: str) -> float:
    """By the last parts, or by all words in whatever order, of two keys; 1 where they are the same."""
    last_parts = _ratio(given.rpartition(".")[2], key.rpartition(".")[2])
    return max(last_parts, _ratio(_words(given), _words(key)))


def _words(key: str) -> str:
    return " ".join(sorted(re.split(r"[._]", key)))


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
