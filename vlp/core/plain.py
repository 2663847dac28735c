"""Settings from plain values, such as those of a JSON file, by the type hints of their dataclasses."""

import types
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from vlp.core.config import naming

Config = TypeVar("Config")
KINDS: Mapping[Any, Any] = {
    Any: object,
    Mapping: Mapping,
    dict: Mapping,
    Path: str,
    Sequence: (list, tuple),
    float: (int, float),
    list: (list, tuple),
    tuple: (list, tuple),
}
"""What the plain value of a type is, where it is not of that type itself."""


class Marker(ABC):
    """Says how the plain value of a setting is read: `Annotated[type, marker]`."""

    kind: type
    """What its plain values are."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """The setting that a plain value stands for; a ValueError if it stands for none."""


@overload
def from_plain(hint: type[Config], value: Any) -> Config: ...
@overload
def from_plain(hint: Any, value: Any) -> Any: ...
def from_plain(hint: Any, value: Any) -> Any:
    """What a plain value means as a setting of a type: `from_plain(RunConfig, json.loads(text))`.

    Reads what a configuration saved as JSON gives: dataclasses and what is in them, of the types None, bool,
    int, float, str, Path, Literal, tuple, list, Mapping, unions of these, and those that a `Marker` reads. It
    checks no more than that a value can be read; the dataclasses check the rest.

    Raises:
        ValueError: the value is none of the type, or a setting is unknown or missing; begins with its key.
    """
    if not _fits(hint, value):
        raise ValueError(f"must be {_name(hint)}, got {value!r}")
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        marker = _marker(hint)
        return marker.read(value) if marker else from_plain(arguments[0], value)
    if origin in (Union, types.UnionType):
        return from_plain(next(member for member in arguments if _fits(member, value)), value)
    if is_dataclass(origin):
        return _dataclass(origin, value)
    return _collection(origin, arguments, value)


def _collection(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin in (Mapping, dict):
        return {key: _setting(key, arguments[1], part) for key, part in value.items()}
    if origin is tuple and arguments[-1] is not ...:
        return tuple(from_plain(hint, part) for hint, part in zip(arguments, value, strict=True))
    if origin in (tuple, list, Sequence):
        parts = [from_plain(arguments[0], part) for part in value]
        return tuple(parts) if origin is tuple else parts
    return origin(value) if origin in (Path, float) else value


def _dataclass(cls: Any, values: Mapping[str, Any]) -> Any:
    known = {field.name: field for field in fields(cls)}
    for key in values:
        if key not in known:
            raise ValueError(f"{key} is not a setting of {cls.__name__}")
    for key, field in known.items():
        if key not in values and not _has_default(field):
            raise ValueError(f"{key} is missing")
    hints = get_type_hints(cls, include_extras=True)
    return cls(**{key: _setting(key, hints[key], value) for key, value in values.items()})


def _setting(key: str, hint: Any, value: Any) -> Any:
    """A setting of a dataclass or a mapping, with its key before the message of an error."""
    with naming(f"{key}." if isinstance(value, Mapping) else f"{key} "):
        return from_plain(hint, value)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _fits(hint: Any, value: Any) -> bool:
    """Whether a plain value may be one of a type, at first sight."""
    origin = get_origin(hint) or hint
    if origin is Annotated:
        marker = _marker(hint)
        return isinstance(value, marker.kind) if marker else _fits(hint.__origin__, value)
    if origin in (Union, types.UnionType):
        return any(_fits(member, value) for member in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    kind = Mapping if is_dataclass(origin) else KINDS.get(origin, origin)
    is_number = isinstance(value, bool) and kind in (int, KINDS[float])  # Python counts True as 1
    return isinstance(value, kind) and not is_number


def _marker(hint: Any) -> Marker | None:
    return next((marker for marker in hint.__metadata__ if isinstance(marker, Marker)), None)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
