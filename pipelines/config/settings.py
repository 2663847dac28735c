"""Configuration: YAML files and `key.path=value` overrides, parsed into frozen dataclasses."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pydantic
import yaml
from yaml.composer import ComposerError

from pipelines.config.errors import ConfigError, blaming, nearest
from pipelines.config.explain import explain
from pipelines.config.plugins import KEY, as_keys, import_plugins
from pipelines.config.schema import configs_of, hint_below
from vlp.core.config import annotations_of
from vlp.core.messages import one_line
from vlp.shards.storage.folder import Folder

Schema = TypeVar("Schema")
NAME, MODEL = "name", "model"


class Layer(NamedTuple):
    """Settings from one place."""

    values: Any
    source: str
    """The file they came from, or `command line`."""


@dataclass(frozen=True)
class Layers:
    """Settings from several places; each is put on top of those before it."""

    layers: tuple[Layer, ...] = ()
    others: tuple[str, ...] = ()
    """Dotted keys of settings that were read apart; a mistake may have meant one of them."""

    def add(self, values: Any, source: str) -> "Layers":
        """Put settings on top."""
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: expected `key: value` lines, got {type(values).__name__}")
        return dataclasses.replace(self, layers=(*self.layers, Layer(as_keys(values, source), source)))

    def set(self, overrides: Mapping[str, Any], source: str) -> "Layers":
        """Put single settings on top, by dotted key."""
        layers = self
        for key, value in overrides.items():
            layers = layers.add(nested(key, value), source)
        return layers

    def merged(self, schema: Any = None) -> dict[str, Any]:
        """All settings in one tree; the schema says which of them drop others."""
        return reduce(partial(merged, hint=schema), (layer.values for layer in self.layers), {})

    def below(self, key: str) -> "Layers":
        """The settings under a key."""
        return Layers(tuple(Layer(values[key], source) for values, source in self.layers if key in values))

    def without(self, key: str) -> "Layers":
        """All other settings."""
        others = ({k: v for k, v in values.items() if k != key} for values, _ in self.layers)
        return Layers(tuple(map(Layer, others, (layer.source for layer in self.layers))))

    def blamed(self, keys: Iterable[Sequence[str]]) -> str | None:
        """Where one of these settings, or one below, or else above, was set last; None if none was set."""
        tried = list(keys)
        while any(tried):
            for layer in reversed(self.layers):
                if any(key and _sets(layer.values, key) for key in tried):
                    return layer.source
            tried = [key[:-1] for key in tried]
        return None


def _sets(values: Any, key: Sequence[str]) -> bool:
    """Whether settings set a key, or all that is above it at once."""
    for part in key:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that a mapping sets twice, of which YAML would take the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping of the file, before its values are made."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ComposerError(None, None, f"{key.value} is set twice", key.start_mark)
                seen.add(key.value)
        return node


def read_layers(arguments: Sequence[str]) -> Layers:
    """Merge YAML files and `key.path=value` overrides, left to right; overrides win.

    Raises:
        ConfigError: a file is missing or is not YAML, or an argument is neither.
    """
    layers = Layers()
    for place, argument in enumerate(arguments):
        if "=" in argument:
            continue
        if not argument.endswith((".yaml", ".yml")) and not Path(argument).exists():
            value = next(iter(arguments[place + 1 :]), "VALUE")
            raise ConfigError(f"{argument} is not a file; a setting is written {argument}={value}")
        layers = layers.add(read_yaml(Path(argument)), argument)
    overrides = parse_overrides([a for a in arguments if "=" in a])
    if NAME not in overrides:
        _check_one_name(layers)
    return layers.set(overrides, "command line")


def _check_one_name(files: Layers) -> None:
    """Raise a ConfigError where two files are merged, each of a name of its own, into a third thing."""
    named = [(values[NAME], source) for values, source in files.layers if NAME in values]
    for name, source in named[1:]:
        if name != named[0][0]:
            raise ConfigError(
                f"{source}: name is {name}, and {named[0][1]} is {named[0][0]}; give one of these files, or "
                "say what they are together with name=..."
            )


def check_still_named(layers: Layers) -> None:
    """Raise a ConfigError where another objective is put on a run that keeps the name of its method."""
    sources = [source for _, source in layers.layers]
    if (source := layers.blamed([[NAME]])) is None:
        return
    end = len(sources) - sources[::-1].index(source)
    named, objective = _objective(Layers(layers.layers[:end])), _objective(layers)
    if named is not None and objective != named:
        name, culprit = layers.merged()[NAME], layers.blamed([["objective", "name"]])
        raise ConfigError(
            f"{culprit}: objective.name is {objective}, and {name} ({source}) is {named}; give what it "
            f"becomes a name of its own, such as name={name}_{objective}"
        )


def _objective(layers: Layers) -> str | None:
    objective = layers.merged().get("objective")
    return objective.get("name") if isinstance(objective, dict) else None


def read_yaml(file: Path) -> Any:
    """The content of one YAML file; {} for an empty one."""
    if not file.is_file():
        siblings = [str(p) for p in file.parent.glob("*.yaml")]
        own = "; `vlp conf copy` puts those that come with vlp there" if file.parts[:1] == ("conf",) else ""
        raise ConfigError(f"no such file: {file}{nearest(str(file), siblings) if siblings else own}")
    try:
        return yaml.load(file.read_text(encoding="utf-8"), UniqueKeys) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {one_line(error)}") from error


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """["mask.threshold=0.7"] -> {"mask.threshold": 0.7}; values are read as YAML."""
    overrides = {}
    for key, _, value in (argument.partition("=") for argument in arguments):
        try:
            overrides[key] = yaml.load(value, UniqueKeys)
        except yaml.YAMLError as error:
            reason = f": {error.problem}" if isinstance(error, ComposerError) else ""
            raise ConfigError(f"command line: {key}: {value!r} is not a YAML value{reason}") from error
    return overrides


def build(schema: type[Schema], layers: Layers, *, prefix: str = "") -> Schema:
    """Parse settings into the dataclass that they configure; the plug-ins that they name are imported before.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value, or a plug-in that cannot be imported;
            one line that names it.
    """
    for given, source in layers.layers:
        if isinstance(given, Mapping):
            import_plugins(given.get(KEY, ()), source=source)
    values = with_model(layers.merged(schema), schema, source=layers.blamed([[MODEL]]))
    if KEY in values:
        values[KEY] = list(values[KEY])
    try:
        return pydantic.TypeAdapter(schema).validate_python(values)
    except pydantic.ValidationError as error:
        problem, keys = explain(error, schema, values, prefix=prefix, others=layers.others)
        source = layers.blamed(keys)
        raise ConfigError(f"{source}: {problem}" if source else problem) from error


def with_model(values: dict[str, Any], schema: Any, *, source: str | None) -> dict[str, Any]:
    """A run's settings, with the sizes of both towers for `model: ViT-B-32`, a name of open_clip's.

    They come below all others, as far as the run has such settings: SuperClass has no text tower.

    Raises:
        ConfigError: there is no such model, or one that ours cannot be.
    """
    has_towers = dataclasses.is_dataclass(schema) and "image_encoder" in annotations_of(schema)
    if MODEL not in values or not has_towers:
        return values
    from vlp.imports.open_clip import clip_model, settings_of_model

    given, name = {key: value for key, value in values.items() if key != MODEL}, str(values[MODEL])
    with blaming(f"{source}: "):
        sizes = settings_of_model(clip_model(name), name=name)
    objective = given.get("objective", {})
    chosen = configs_of(hint_below(schema, "objective"), objective)
    known = annotations_of(chosen[0]) if len(chosen) == 1 else {}
    own = {key: value for key, value in sizes["objective"].items() if key in known}
    sizes["objective"] = own | {NAME: objective[NAME]} if own else {}
    return merged(sizes, given, hint=schema)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON and YAML values, defaults included."""
    return json.loads(json.dumps(_plain(config), default=str))


def _plain(value: Any) -> Any:
    """A config as mappings and lists; what is neither stays what it is: a file system cannot be copied."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


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
    """Dotted key and value of everything that is not a mapping."""
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


def merged(base: Any, update: Any, *, hint: Any = None) -> Any:
    """One tree of settings on top of another.

    Args:
        hint: annotation of the settings. Where it is one of several components, another `name` starts from
            that one's own defaults; where it has alternatives, naming one drops the others.
    """
    if not (isinstance(base, dict) and isinstance(update, dict)):
        return update
    if configs_of(hint, base) != configs_of(hint, base | update):
        return update
    dropped = {key for config in configs_of(hint, base) for key in config.replaced(update)}
    kept = {key: value for key, value in base.items() if key not in dropped}
    below = {
        key: merged(kept.get(key), value, hint=hint_below(hint, key, base)) for key, value in update.items()
    }
    return kept | below
