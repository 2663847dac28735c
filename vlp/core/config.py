"""The one convention every config dataclass follows: it is strict, and says the bounds of its numbers."""

import re
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, get_args, get_type_hints


class Bound(ABC):
    """What a number has to be, as metadata of its setting: `steps: Annotated[int, AtLeast(1)] = 100`."""

    @abstractmethod
    def allows(self, number: float) -> bool:
        """Whether a number is within the bound."""

    @property
    def demand(self) -> str:
        """What a message asks for."""
        return f"must be {self}"


@dataclass(frozen=True)
class AtLeast(Bound):
    """The number or more."""

    least: float

    def allows(self, number: float) -> bool:
        return number >= self.least

    @property
    def demand(self) -> str:
        return f"must be {self}" if self.least else "must not be negative"

    def __str__(self) -> str:
        return f"at least {self.least}"


@dataclass(frozen=True)
class Above(Bound):
    """More than the number."""

    number: float

    def allows(self, number: float) -> bool:
        return number > self.number

    def __str__(self) -> str:
        return f"above {self.number}"


@dataclass(frozen=True)
class Within(Bound):
    """In an interval, of which a round bracket leaves the end out: `Within(0, 1, "[)")` is [0, 1)."""

    low: float
    high: float
    ends: str = "[]"

    def allows(self, number: float) -> bool:
        is_above = number >= self.low if self.ends[0] == "[" else number > self.low
        is_below = number <= self.high if self.ends[1] == "]" else number < self.high
        return is_above and is_below

    def __str__(self) -> str:
        return f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}"


class StrictConfig:
    """Base of config dataclasses: a key that is not a field is an error, and so is a number out of bounds.

    A subclass that compares settings with each other does so in a `__post_init__` that first calls this one.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read by pydantic; vlp itself never imports it

    COUNTERPARTS: ClassVar[Mapping[str, str]] = {}
    """What to do in place of setting what is no setting here, but one of a tool that users come from."""

    def __post_init__(self) -> None:
        for name, bounds in bounds_of(type(self)).items():
            for key, number, shown in _numbers(name, getattr(self, name)):
                for bound in bounds:
                    if not bound.allows(number):
                        raise ValueError(f"{key} {bound.demand}, got {shown}")

    @classmethod
    def replaced(cls, given: Mapping[str, Any]) -> frozenset[str]:
        """Settings that go where these are put on top of them: none, unless some exclude others."""
        return frozenset()

    @property
    def bounded(self) -> Mapping[str, float]:
        """The numbers that the bounds of a setting hold for whose value is this config, by their names."""
        return {}


@cache
def annotations_of(config: Any) -> dict[str, Any]:
    """Name -> annotation of every setting of a config class, its own last."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in fields(config)}


@cache
def bounds_of(config: Any) -> dict[str, tuple[Bound, ...]]:
    """Name -> bounds of every setting of a config class that has any; a class inherits them."""
    inherited = [bounds_of(base) for base in reversed(config.__bases__) if is_dataclass(base)]
    own = {name: tuple(_bounds(hint)) for name, hint in annotations_of(config).items()}
    return dict(ChainMap({name: found for name, found in own.items() if found}, *inherited))


def _bounds(hint: Any) -> Iterator[Bound]:
    yield from (marker for marker in getattr(hint, "__metadata__", ()) if isinstance(marker, Bound))
    for argument in get_args(hint):
        yield from _bounds(argument)


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float, Any]]:
    """Each number of a setting, with its key, and what a message shows as its value."""
    if isinstance(value, tuple):
        yield from ((key, number, list(value)) for number in value)
    elif isinstance(value, StrictConfig):
        yield from ((f"{key}.{name}", number, number) for name, number in value.bounded.items())
    elif isinstance(value, int | float):
        yield key, value, value


def check_name(name: str) -> None:
    """Raise a ValueError for a name that makes no folder."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"name must be letters, digits and any of _ . -, got {name!r}")


@contextmanager
def naming(prefix: str) -> Iterator[None]:
    """Put the key of a setting before the message of a ValueError about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error
