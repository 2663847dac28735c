"""The folders that a command line names; and how it ends where it cannot go on: in one line."""

import sys
from pathlib import Path
from typing import Any

import click


class AnyFolder(click.ParamType):
    """A folder of this machine or in an object store, as a `Folder`."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipelines.config.errors import ConfigError
        from vlp.shards.storage.address import open_folder

        try:
            return open_folder(value)
        except ValueError as error:
            raise ConfigError(str(error)) from error


class LocalPath(click.Path):
    """A path in a file system, as a `Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipelines.config.errors import ConfigError

        if "://" in str(value):
            raise ConfigError(
                f"{value} is no path in a file system; choose a local folder: of all commands only "
                "`vlp download` and `vlp data describe` write to an object store"
            )
        return super().convert(value, param, ctx)


FOLDER, LOCAL = AnyFolder(), LocalPath()


class Vlp(click.Group):
    """Turns a user's mistake into one line and exit code 2, a failed training into one and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from pipelines.config.errors import ConfigError, is_refusal, training_failure

        try:
            return super().invoke(ctx)
        except ConfigError as error:
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
