"""What commands are made of: the folders they name, their settings, and how they end: in one line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipelines.commands.completion import complete_settings

if TYPE_CHECKING:
    from pipelines.config.machine import MachineConfig
    from pipelines.config.settings import Layers


class AnyFolder(click.ParamType):
    """A folder of this machine or in an object store, as a `Folder`."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipelines.config.errors import UserError
        from vlp.shards.storage.address import open_folder

        try:
            return open_folder(value)
        except ValueError as error:
            raise UserError(str(error)) from error


class LocalPath(click.Path):
    """A path in a file system, as a `Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipelines.config.errors import UserError

        if "://" in str(value):
            raise UserError(
                f"{value} is not a path in a file system; choose a local folder: of all commands only "
                "`vlp download` and `vlp data describe`, `balance` and `score` write to an object store"
            )
        return super().convert(value, param, ctx)


FOLDER, LOCAL = AnyFolder(), LocalPath()
INPUT = click.Path(path_type=Path)
"""A path that is read, or the address of what MLflow holds."""

SUBMITTED_BY = "VLP_SUBMITTED_BY"
"""Variable of a job's environment: the version of vlp that submitted it."""


SETTINGS_HELP = """

SETTINGS are YAML files and `key.path=value` overrides; they merge from left to right, overrides win.
Every command also takes `machine.*` settings, or a file of conf/machine/: where it runs, never its result.
`vlp settings KEY` says what each setting is, such as `vlp settings mask` or `vlp settings machine`.
"""


def settings_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that takes settings; the text about them is added to its help."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        function.__doc__ = f"{function.__doc__}{SETTINGS_HELP}"
        given = click.argument("settings", nargs=-1, shell_complete=complete_settings)
        command = click.command(name)(given(function))
        command.params.sort(key=lambda param: param.name == "settings")  # after what has a place of its own
        return command

    return wrap


FILES = {"runs": ("a pipeline", "run"), "space": ("a sweep", "sweep"), "objective": ("a run", "pretrain")}
"""Keys that only one kind of file has -> what it is the file of, and the command that takes it."""
ANY = ("plan", "print-config", "ui")
READERS = {"runs": ANY, "space": ANY, "objective": (*ANY, "masks")}
"""Commands that read such a file too, by the same keys."""


def read(settings: tuple[str, ...]) -> "tuple[Layers, MachineConfig]":
    """Settings of the command and of the machine.

    Raises:
        ConfigError: a file is for another command.
    """
    from pipelines.config.errors import ConfigError
    from pipelines.config.machine import read_settings

    layers, machine = read_settings(settings)
    command = click.get_current_context().info_name
    for values, source in layers.layers:
        for key, (kind, right) in FILES.items():
            if key in values and source in settings and command not in (right, *READERS[key]):
                raise ConfigError(
                    f"{source} is the file of {kind}, not for `vlp {command}`: vlp {right} {source}"
                )
    return layers, machine


def read_machine(settings: tuple[str, ...]) -> "MachineConfig":
    """Settings of a command that takes those of the machine alone.

    Raises:
        ConfigError: there are others.
    """
    from pipelines.config.errors import ConfigError, nearest

    layers, machine = read(settings)
    for key in layers.merged():
        raise ConfigError(f"{key} is not a setting of this command{nearest(key, ['machine'])}")
    return machine


class Vlp(click.Group):
    """Turns a user's mistake into one line and exit code 2, a failed training into one and exit code 1.

    SIGTERM ends every command in order, with exit code 143.
    """

    def invoke(self, ctx: click.Context) -> Any:
        from pipelines.compute.termination import EXIT_CODE, heeding_sigterm
        from pipelines.config.errors import Terminated, UserError, refusal, training_failure
        from pipelines.config.secrets import print_failure, without_secrets

        sys.excepthook = print_failure
        _compare_versions()
        try:
            with heeding_sigterm():
                return super().invoke(ctx)
        except Terminated:
            _end("ended by SIGTERM; the same command goes on from here", EXIT_CODE)
        except click.NoSuchOption as error:
            name = error.ctx.info_name if error.ctx else ""
            _end(
                f"{error.option_name} is not an option of `vlp {name}`; settings are written KEY=VALUE, such "
                f"as training.length.steps=100: `vlp settings` lists them, `vlp {name} --help` the options",
                2,
            )
        except UserError as error:
            _end(error, 2)
        except click.UsageError as error:
            raise click.UsageError(without_secrets(error.format_message()), error.ctx) from error
        except Exception as error:
            if (refused := refusal(error)) is not None:
                _end(refused, 2)
            if (reason := training_failure(error)) is None:
                raise
            _end(f"training failed: {reason}", 1)


def _compare_versions() -> None:
    """Say so where a job runs another vlp than the one that submitted it."""
    from vlp import __version__

    there = os.environ.get(SUBMITTED_BY, __version__)
    if there != __version__:
        click.echo(f"vlp: {there} submitted this job, and the cluster has {__version__}", err=True)


def _end(reason: object, code: int) -> NoReturn:
    """End the command, with the reason in one line."""
    from pipelines.config.secrets import without_secrets

    click.echo(without_secrets(f"vlp: {reason}"), err=True)
    sys.exit(code)
