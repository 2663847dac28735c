"""Which settings a config has below it, as its annotations say."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from vlp.core.registry import ByName


@cache
def settings_of(config: Any) -> dict[str, Any]:
    """Name -> annotation of every setting of a config class."""
    hints = typing.get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def configs_of(hint: Any, value: Any = None) -> list[Any]:
    """Every config class that an annotation allows; the one that a value names, where it names one."""
    for marker in getattr(hint, "__metadata__", ()):
        if isinstance(marker, ByName):
            name = marker.name_of(value)
            return [marker.registry[name]] if name in list(marker.registry) else [*marker.registry.values()]
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [config for argument in typing.get_args(hint) for config in configs_of(argument, value)]


def dotted_keys(config: Any, values: Any) -> Iterator[str]:
    """Every key below a config class, however deep, where these values name components."""
    for name, hint in settings_of(config).items():
        yield name
        value = values.get(name) if isinstance(values, Mapping) else None
        for below in configs_of(hint, value):
            yield from (f"{name}.{key}" for key in dotted_keys(below, value))


def similar_key(given: str, keys: Iterable[str], *, at_least: float) -> str | None:
    """The key that a misspelt or moved one most likely stands for; the first of those that are as near.

    Args:
        at_least: how near it has to be, in [0, 1].
    """
    likeness = {key: _likeness(given, key) for key in keys}
    nearest = max(likeness, key=likeness.__getitem__, default="")
    return nearest if likeness.get(nearest, 0) >= at_least else None


def _likeness(given: str, key: str) -> float:
    """By the last parts, or by all words in whatever order, of two keys; 1 where they are the same."""
    last_parts = _ratio(given.rpartition(".")[2], key.rpartition(".")[2])
    return max(last_parts, _ratio(_words(given), _words(key)))


def _words(key: str) -> str:
    return " ".join(sorted(re.split(r"[._]", key)))


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
