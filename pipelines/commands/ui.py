"""`vlp ui`: MLflow, opened on the experiments."""

import sys

import click

from pipelines.commands.group import read, settings_command
from pipelines.tracking.view import HOST, PORT


@settings_command("ui")
@click.option("--host", default=HOST, show_default=True)
@click.option("--port", default=PORT, show_default=True)
def ui(settings: tuple[str, ...], host: str, port: int) -> None:
    """Open MLflow on the experiments.

    Example: vlp ui
    """
    _, machine = read(settings)
    from pipelines.tracking.server import ui

    sys.exit(ui(machine.mlflow_uri, host=host, port=port))
