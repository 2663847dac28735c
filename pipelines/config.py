"""Configuration: YAML files and `key.path=value` overrides, parsed into frozen dataclasses."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
import yaml

from pipelines.config_errors import ConfigError, explain, nearest
from vlp.config import StrictConfig
from vlp.data.cache import ShardCache
from vlp.data.folder import Folder

Schema = TypeVar("Schema")


@dataclass(frozen=True, kw_only=True)
class MachineConfig(StrictConfig):
    """Where and how the work runs. Never changes a result."""

    storage: Path = Path("results")
    """Folder of all results, in a file system; on a cluster one that every node sees."""
    ray_address: str | None = None
    """Running cluster to join (`auto` finds it); None starts Ray on this machine."""
    num_workers: int = 1
    """Training workers; 0 trains in this process, without Ray."""
    use_gpu: bool = False
    """Give each training worker a GPU."""
    cpus_per_worker: int = 1
    loader_workers: int = 0
    """Processes that decode images, per training worker."""
    data_workers: int = 2
    """Ray actors that download and count, each on one CPU; 0 has processes of this machine do so, one per CPU
    core, without Ray."""
    tracking_uri: str | None = None
    """MLflow server; None is a SQLite store in `storage`."""
    batch_parts: int = 1
    """Parts in which a training worker encodes its share of a batch, one after another, to need less memory
    for a second forward pass; the loss still sees the whole batch."""
    checkpoint_activations: bool = False
    """Compute each block's activations again in the backward pass instead of holding them."""
    compile: bool = False
    """Compile the encoders' blocks before the first step, which takes a minute or so; for GPUs."""
    log_every_steps: int = 10
    checkpoint_every_steps: int = 500
    cache: ShardCache | None = None
    """Local copies of shards that lie on a slow folder; None reads them where they lie."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept on disk."""
    keep_best_checkpoints: int = 0
    """Best checkpoints kept beside them, by the validation metric."""
    keep_every_steps: int | None = None
    """Those after multiples of this many steps are kept, too; a multiple of `checkpoint_every_steps`."""
    track_checkpoints: Literal["all", "best", "last", "none"] = "last"
    """Which checkpoints go to MLflow; `best` is by the validation metric, or the last without one."""
    max_failures: int = 3
    """Deaths of workers that a run survives."""

    def __post_init__(self) -> None:
        if re.match(r"[a-z0-9+]+:/", str(self.storage)):
            raise ValueError(
                f"storage must be a folder of a file system, got {self.storage}; only shards may be elsewhere"
            )
        for key in (
            "cpus_per_worker",
            "batch_parts",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_checkpoints",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, got {getattr(self, key)}")
        for key in ("num_workers", "data_workers", "loader_workers", "keep_best_checkpoints"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must not be negative, got {getattr(self, key)}")
        kept, saved = self.keep_every_steps, self.checkpoint_every_steps
        if kept is not None and (kept < 1 or kept % saved):
            raise ValueError(
                f"keep_every_steps must be a multiple of checkpoint_every_steps ({saved}), got {kept}"
            )

    @property
    def num_gpus(self) -> int:
        """GPUs that training needs at once."""
        return max(1, self.num_workers) * self.use_gpu

    @property
    def mlflow_uri(self) -> str:
        """Where experiments are tracked."""
        return self.tracking_uri or f"sqlite:///{(self.storage / 'mlflow.db').absolute()}"


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
        merged = {key: _merge(self.values.get(key), value) for key, value in values.items()}
        return Layers(self.values | merged, kept | given)

    def set(self, overrides: Mapping[str, Any], source: str) -> "Layers":
        """Put single settings on top, by dotted key."""
        layers = self
        for key, value in overrides.items():
            layers = layers.add(_nest(key, value), source)
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
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """["mask.threshold=0.7"] -> {"mask.threshold": 0.7}; values are read as YAML."""
    overrides = {}
    for key, _, value in (argument.partition("=") for argument in arguments):
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"command line: {key}: {value!r} is no YAML value") from error
    return overrides


def split_machine(layers: Layers) -> tuple[Layers, MachineConfig]:
    """Separate the key `machine`, which every command takes, from the command's own settings."""
    values = dict(layers.values)
    machine = build(MachineConfig, Layers(values.pop("machine", {}), layers.origin), prefix="machine")
    return Layers(values, layers.origin), machine


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


def check_name(name: str) -> None:
    """Raise a ValueError for a name that makes no folder."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"name must be letters, digits and any of _ . -, got {name!r}")


def file_sha256(file: Path) -> str:
    """SHA-256 of the content of a file, as 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """Identity of settings and inputs, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is no mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def _merge(base: Any, update: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(update, dict)):
        return update
    # Another component starts from its own defaults, not from the old one's settings.
    if "name" in update and update["name"] != base.get("name"):
        return update
    return base | {key: _merge(base.get(key), value) for key, value in update.items()}
