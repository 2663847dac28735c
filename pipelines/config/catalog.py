"""Every setting there is, with type, bounds, default and description, as the config classes state them."""

import ast
import dataclasses
import inspect
import json
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import yaml

from pipelines.config.errors import UserError
from pipelines.config.schema import (
    SettingsOf,
    configs_of,
    is_container,
    marker_of,
    members_of,
    similar_key,
)
from vlp.core.config import annotations_of, bounds_of
from vlp.core.registry import ByName, Registry
from vlp.shards.storage.folder import Folder

WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}


@dataclass(frozen=True)
class Entry:
    """A setting, a component that it may be, or all that a command takes."""

    key: str
    hint: Any
    """Its annotation, or the class of the component or of the command."""
    kind: str
    """Its type and bounds, in words."""
    text: str
    """What its docstring says."""
    default: str = ""
    """As YAML; "" for settings of its own, which have their defaults."""
    is_required: bool = False

    @property
    def choices(self) -> Registry:
        """The components that it may be by name; none where `name` picks none."""
        marker = marker_of(_element(self.hint)[0], ByName)
        return marker.registry if marker else Registry()

    def below(self) -> Iterator["Entry"]:
        """The settings of it, or of every component that it may be."""
        element, suffix = _element(self.hint)
        if marker_of(element, SettingsOf) is None:
            for config in configs_of(element):
                yield from entries(config, f"{self.key}{suffix}.")

    def step(self, part: str) -> Iterator["Entry"]:
        """What a part of a dotted key leads to from here: a component, or a setting."""
        element, suffix = _element(self.hint)
        if part in self.choices:
            config = self.choices[part]
            yield Entry(f"{self.key}{suffix}", config, f"{{name: {part}}}", inspect.getdoc(config) or "")
        elif suffix == f".{part}":
            yield dataclasses.replace(self, key=f"{self.key}.{part}", hint=element)
        else:
            yield from (entry for entry in self.below() if entry.key.rpartition(".")[2] == part)


def entries(config: Any, prefix: str = "") -> Iterator[Entry]:
    """The settings of a config class, without the `name` that picks it."""
    texts = field_texts(config)
    for field in dataclasses.fields(config):
        hint = annotations_of(config)[field.name]
        if typing.get_origin(hint) is Literal and field.name == "name":
            continue
        bounds = " and ".join(map(str, bounds_of(config).get(field.name, ())))
        kind = f"{_type_text(hint)}, {bounds}" if bounds else _type_text(hint)
        default = _default_value(field)
        is_required = default is dataclasses.MISSING
        text = "" if is_required else _as_yaml(default)
        said = texts.get(field.name) or next(map(summary, configs_of(hint)), "")
        yield Entry(f"{prefix}{field.name}", hint, kind, said, text, is_required)


def find(key: str, settings: Iterable[Entry]) -> list[Entry]:
    """What goes by a dotted key: a setting, of every component that has one of this name, or a component.

    Raises:
        UserError: nothing does; names the nearest.
    """
    settings = list(settings)
    first, *parts = key.replace("[]", "").split(".")
    found = [entry for entry in settings if entry.key == first]
    for part in parts:
        found = [further for entry in found for further in entry.step(part)]
    if not found:
        near = similar_key(key, dict.fromkeys(all_keys(settings)), ())
        remedy = f"did you mean {near}?" if near else "`vlp settings` lists the first parts of all"
        raise UserError(f"{key} is not a setting; {remedy}")
    return found


def all_keys(settings: Iterable[Entry]) -> Iterator[str]:
    """The dotted key of every setting, and of every component."""
    for entry in settings:
        yield entry.key
        yield from (f"{entry.key}.{name}" for name in entry.choices)
        yield from all_keys(entry.below())


@cache
def field_texts(config: Any) -> dict[str, str]:
    """Name -> string below each field of a config class, or of the class that it has the field from."""
    texts: dict[str, str] = {}
    owners: list[Any] = [owner for owner in config.__mro__ if dataclasses.is_dataclass(owner)]
    written = [owner for owner in owners if owner.__module__ != "types"]  # the others were made of a registry
    for owner in reversed(written):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)
        texts |= dict(_texts(body.body))
    return texts


def summary(config: Any) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(config) or "").partition("\n")[0]


def _texts(statements: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise(statements):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


def _as_yaml(value: Any) -> str:
    """A default; of a config what differs from the defaults of its own."""
    if dataclasses.is_dataclass(value):
        value = {
            part.name: getattr(value, part.name)
            for part in dataclasses.fields(value)
            if part.name == "name" or getattr(value, part.name) != _default_value(part)
        }
        if not value:
            return ""
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _default_value(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


def _element(hint: Any) -> tuple[Any, str]:
    """What a list or a mapping of configs holds, and what stands for one of them in a key."""
    for member in members_of(hint):
        if is_container(member, Mapping) and configs_of(typing.get_args(member)[1]):
            return typing.get_args(member)[1], ".NAME"
        if is_container(member, Sequence) and configs_of(typing.get_args(member)[0]):
            return typing.get_args(member)[0], "[]"
    return hint, ""


def _type_text(hint: Any) -> str:
    marker = marker_of(hint, SettingsOf)
    if marker is not None:
        return f"some settings of {marker.config.__name__.removesuffix('Config').lower()}"
    texts = ["one of several, by name"] if marker_of(hint, ByName) else []
    members = [member for member in members_of(hint) if not (texts and configs_of(member))]
    return " or ".join(dict.fromkeys([*texts, *map(_member_text, members)]))


def _member_text(member: Any) -> str:
    arguments = typing.get_args(member)
    if typing.get_origin(member) is Literal:
        return " or ".join(map(str, arguments))
    if is_container(member, Mapping):
        return f"mapping of names to {_type_text(arguments[1])}"
    if is_container(member, Sequence):
        parts = dict.fromkeys(_type_text(part) for part in arguments if part is not ...)
        return f"list of ({', '.join(parts)})" if len(parts) > 1 else f"list of {next(iter(parts))}"
    if member is NoneType:
        return "null"
    if isinstance(member, type) and issubclass(member, Folder):
        return "folder, or its address in an object store"
    return "settings" if configs_of(member) else WORDS.get(member, getattr(member, "__name__", str(member)))
