"""Configuration: YAML files and `key.path=value` overrides, parsed into frozen dataclasses."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from pipelines.config.errors import ConfigError, explain, nearest
from vlp.core.messages import one_line
from vlp.shards.storage.folder import Folder

Schema = TypeVar("Schema")


@dataclass(frozen=True)
class Layers:
    """Settings merged from files and overrides, with the source of each, for messages."""

    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    """Dotted key -> file it came from, or `command line`."""

    def add(self, values: Any, source: str) -> "Layers":
        """Put settings on top; naming another component starts it from its own defaults."""
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: expected `key: value` lines, got {type(values).__name__}")
        given = dict.fromkeys(dict(leaves(values)), source)
        replaced = tuple(f"{key}." for key in given)
        kept = {key: file for key, file in self.origin.items() if not key.startswith(replaced)}
        # The top level is no component: its `name` only names the run.
        changed = {key: merged(self.values.get(key), value) for key, value in values.items()}
        return Layers(self.values | changed, kept | given)

    def set(self, overrides: Mapping[str, Any], source: str) -> "Layers":
        """Put single settings on top, by dotted key."""
        layers = self
        for key, value in overrides.items():
            layers = layers.add(nested(key, value), source)
        return layers


def read_layers(arguments: Sequence[str]) -> Layers:
    """Merge YAML files and `key.path=value` overrides, left to right; overrides win.

    Raises:
        ConfigError: a file is missing or is no YAML, or an argument is neither.
    """
    layers = Layers()
    for file in (Path(argument) for argument in arguments if "=" not in argument):
        layers = layers.add(read_yaml(file), str(file))
    return layers.set(parse_overrides([a for a in arguments if "=" in a]), "command line")


def read_yaml(file: Path) -> Any:
    """The content of one YAML file; {} for an empty one."""
    if not file.is_file():
        siblings = [str(p) for p in file.parent.glob("*.yaml")]
        raise ConfigError(f"no such file: {file}{nearest(str(file), siblings)}")
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML: {one_line(error)}") from error


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """["mask.threshold=0.7"] -> {"mask.threshold": 0.7}; values are read as YAML."""
    overrides = {}
    for key, _, value in (argument.partition("=") for argument in arguments):
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"command line: {key}: {value!r} is no YAML value") from error
    return overrides


def build(schema: type[Schema], layers: Layers, *, prefix: str = "") -> Schema:
    """Parse settings into the dataclass that they configure.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value; one line that names it.
    """
    try:
        return pydantic.TypeAdapter(schema).validate_python(layers.values)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, schema, layers.values, layers.origin, prefix)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON and YAML values, defaults included."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def flat_params(config: Any) -> dict[str, Any]:
    """One dotted key per leaf: {"mask.threshold": 0.7, ...}; the same keys are overrides."""
    return dict(leaves(to_dict(config)))


def absolute_paths(config: Schema, folder: Path | None = None) -> Schema:
    """Settings for a process that works elsewhere; paths are relative to the folder, or to this one."""
    folder = folder or Path.cwd()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(config, **{key: _absolute(value, folder) for key, value in values.items()})  # pyright: ignore[reportArgumentType]


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _absolute(part, folder) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_absolute(part, folder) for part in value)
    if dataclasses.is_dataclass(value):
        return absolute_paths(value, folder)
    if isinstance(value, Folder):
        return value.absolute(folder)
    return folder / value if isinstance(value, Path) else value


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is no mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """{"a.b": value} as {"a": {"b": value}}."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def merged(base: Any, update: Any) -> Any:
    """One tree of settings on top of another; another `name` drops the settings of the old one."""
    if not (isinstance(base, dict) and isinstance(update, dict)):
        return update
    # Another component starts from its own defaults, not from the old one's settings.
    if "name" in update and update["name"] != base.get("name"):
        return update
    return base | {key: merged(base.get(key), value) for key, value in update.items()}
