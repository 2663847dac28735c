"""What commands are made of: the folders they name, their settings, and how they end: in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
                "`vlp download` and `vlp data describe` write to an object store"
            )
        return super().convert(value, param, ctx)


FOLDER, LOCAL = AnyFolder(), LocalPath()


SETTINGS_HELP = """

SETTINGS are YAML files and `key.path=value` overrides; they merge from left to right, overrides win.
Every command also takes `machine.*` settings, or a file of conf/machine/: where it runs, never its result.
`vlp settings KEY` says what each setting is, such as `vlp settings mask` or `vlp settings machine`.
"""


def settings_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that takes settings; the text about them is added to its help."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        function.__doc__ = f"{function.__doc__}{SETTINGS_HELP}"
        return click.command(name)(click.argument("settings", nargs=-1)(function))

    return wrap


FILES = {"runs": ("a pipeline", "run"), "space": ("a sweep", "sweep"), "objective": ("a run", "pretrain")}
"""Keys that only one kind of file has -> what it is the file of, and the command that takes it."""


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
            if key in values and source in settings and command not in (right, "print-config", "ui"):
                raise ConfigError(
                    f"{source} is the file of {kind}, not for `vlp {command}`: vlp {right} {source}"
                )
    return layers, machine


class Vlp(click.Group):
    """Turns a user's mistake into one line and exit code 2, a failed training into one and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from pipelines.config.errors import UserError, is_refusal, training_failure

        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            name = error.ctx.info_name if error.ctx else ""
            click.echo(
                f"vlp: {error.option_name} is not an option of `vlp {name}`; settings are written KEY=VALUE, "
                f"such as training.length.steps=100: `vlp settings` lists them, "
                f"`vlp {name} --help` the options",
                err=True,
            )
            sys.exit(2)
        except UserError as error:
            click.echo(f"vlp: {error}", err=True)
            sys.exit(2)
        except Exception as error:
            if is_refusal(error):
                click.echo(f"vlp: {error}", err=True)
                sys.exit(2)
            if (reason := training_failure(error)) is None:
                raise
            click.echo(f"vlp: training failed: {reason}", err=True)
            sys.exit(1)
