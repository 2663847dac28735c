"""The arguments of a command, as the same command takes them on a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipelines.commands.group import FOLDER, INPUT, LOCAL
from pipelines.compute.package import Package
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig, read_settings
from pipelines.config.schema import hint_below, members_of
from pipelines.config.settings import Layers
from vlp.shards.storage.folder import Folder

STAYS_HERE = {
    "submit": "give the command itself",
    "jobs": "it asks the cluster from here",
    "ui": "open the address of machine.tracking_uri in a browser",
}
"""Commands that are of this machine, and what to do instead."""


@dataclass
class Places:
    """Where the paths of a command are, for a job."""

    package: Package
    storage: Folder
    """Of results, for all nodes of the cluster."""
    work: Path
    """What is written on a node below it is published in the storage."""
    is_here: bool
    """Whether the cluster is this machine, where every path is what it is here."""
    outputs: list[str] = field(default_factory=list)
    """What is written, by the paths of the cluster."""

    def output(self, path: str, *, is_local: bool) -> str:
        """Where an output goes: a relative path is one of this folder, or of the cluster's storage.

        Args:
            is_local: it can be written to a file system alone, and is published from there.
        """
        if "://" in path or Path(path).is_absolute():
            there = path
        elif self.is_here:
            there = path = str(Path.cwd() / path)
        else:
            there = str(self.storage / path)
            path = str(self.work / path) if is_local else there
        self.outputs.append(there)
        return path

    def input(self, path: str) -> str:
        """Where an input is: it travels, or every node sees it.

        Raises:
            UserError: it is on this machine alone.
        """
        if Path(path).is_absolute() or not Path(path).exists():
            return path
        if self.is_here:
            return str(Path(path).absolute())
        if self.package.holds(Path(path)):
            return path
        raise _alone(path, "does not travel with the job")

    def folder(self, path: str) -> str:
        """Where a folder is that a command works in: never in the job's copy, which is gone with the job.

        Raises:
            UserError: it is on this machine alone.
        """
        if Path(path).is_absolute() or "://" in path:
            return path
        if self.is_here:
            return str(Path(path).absolute())
        raise _alone(path, "what is written there would be lost with the job's copy")


def _alone(path: str, what: str) -> UserError:
    return UserError(
        f"{path} is on this machine, and {what}; copy it to where every node sees it, and name it by its "
        "absolute path or its address in an object store"
    )


def find_command(arguments: Sequence[str], main: click.Group) -> tuple[list[str], click.Command, list[str]]:
    """The names of a command, the command, and what it is given.

    Raises:
        UserError: there is none of the name, or it makes no sense as a job.
    """
    names, command, rest = [], main, list(arguments)
    while isinstance(command, click.Group):
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            valid = ", ".join(sorted(set(command.commands) - STAYS_HERE.keys()))
            raise UserError(f"{name or 'nothing'} is not a command to submit; valid: {valid}")
        names.append(name)
        command = command.commands[name]
    if (remedy := STAYS_HERE.get(names[0])) is not None:
        raise UserError(f"`vlp {names[0]}` is not a job; {remedy}")
    return names, command, rest


def given_settings(command: click.Command, given: Sequence[str]) -> tuple[Layers, MachineConfig] | None:
    """The settings that a command is given, and the machine's; None of a command that takes none.

    Raises:
        ConfigError: they are wrong; so that a mistake costs no job.
    """
    if not _takes_settings(command):
        return None
    return read_settings(_parse(command, given).get("settings", ()))


def job_arguments(names: list[str], command: click.Command, given: list[str], places: Places) -> list[str]:
    """The same command for the cluster: each path where it is there, and results in its storage."""
    values = _parse(command, given)
    options, arguments = [], []
    for param in command.params:
        if param.name not in values:
            continue
        value = values[param.name]
        if isinstance(param, click.Option):
            options += [param.opts[-1]] if param.is_flag else [param.opts[-1], _place(param, value, places)]
        else:
            arguments += [_place(param, one, places) for one in (value if param.nargs == -1 else (value,))]
    if _takes_settings(command):
        arguments += _moved_settings(names[-1], values.get("settings", ()), places)
        arguments.append(f"machine.storage={places.storage}")
    return [*names, *options, *arguments]


def _takes_settings(command: click.Command) -> bool:
    return any(param.name == "settings" for param in command.params)


def _parse(command: click.Command, given: Sequence[str]) -> dict[str, Any]:
    """What is given for each parameter that is, as it is written; click's own error where that is wrong."""
    context = click.Context(command, info_name=command.name)
    values, rest, _ = command.make_parser(context).parse_args(list(given))
    for param in command.params:
        param.handle_parse_result(context, dict(values), rest)
    named = {name: context.get_parameter_source(name) for name in values}
    return {name: values[name] for name, source in named.items() if source is ParameterSource.COMMANDLINE}


def _place(param: click.Parameter, value: str, places: Places) -> str:
    if param.name == "output":
        return places.output(value, is_local=param.type is LOCAL)
    if param.type in (FOLDER, LOCAL):
        return places.folder(value)
    if param.type is INPUT or (isinstance(param, click.Argument) and "=" not in value):
        return places.input(value)
    return value


def _moved_settings(command: str, settings: Sequence[str], places: Places) -> list[str]:
    """Overrides of the settings that are paths, in files or given singly, and are elsewhere for the job."""
    from pipelines.commands.schemas import COMMANDS  # all that the commands need: takes seconds to import
    from vlp.run import RunConfig

    schemas = {**COMMANDS, "run": COMMANDS["pipeline"], "pretrain": RunConfig}
    layers, _ = read_settings(settings)
    paths = dict(_paths(layers.merged(), schemas.get(command)))
    placed = {key: _placed(path, places) for key, path in paths.items()}
    return [f"{key}={path}" for key, path in placed.items() if path != _placed(paths[key])]


def _placed(value: str | list[str], places: Places | None = None) -> str:
    """A path, or a list of some, as an override has it; where they are for a job, if so asked."""
    if isinstance(value, list):
        return f"[{','.join(_placed(path, places) for path in value)}]"
    return places.input(value) if places else value


def _paths(values: Mapping[str, Any], hint: Any, prefix: str = "") -> Iterator[tuple[str, str | list[str]]]:
    """Dotted key and value of every setting that is a path, or a list of some."""
    for key, value in values.items():
        below = hint_below(hint, key, values)
        if isinstance(value, Mapping):
            yield from _paths(value, below, f"{prefix}{key}.")
            continue
        kind = hint_below(below, 0) if isinstance(value, list) else below
        if isinstance(value, str | list) and {Path, Folder}.intersection(members_of(kind)):
            yield f"{prefix}{key}", value
