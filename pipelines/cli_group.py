"""How the command line ends where it cannot go on: in one line, with an exit code, without a traceback."""

import sys
from typing import Any

import click


class Vlp(click.Group):
    """Turns a user's mistake into one line and exit code 2, a failed training into one and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from pipelines.config_errors import ConfigError, training_failure

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"vlp: {error}", err=True)
            sys.exit(2)
        except Exception as error:
            if (reason := training_failure(error)) is None:
                raise
            click.echo(f"vlp: training failed: {reason}", err=True)
            sys.exit(1)
