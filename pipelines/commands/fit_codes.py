"""`vlp fit-codes`: codes for SimMIM's class targets."""

from functools import partial
from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("fit-codes")
@click.option("-o", "--output", type=LOCAL, required=True, help="The .npy file.")
def fit_codes(settings: tuple[str, ...], output: Path) -> None:
    """Fit a palette of colours, or a vocabulary of visual words, for SimMIM's class targets.

    Example: vlp fit-codes shards=shards target.name=color_clusters -o palette.npy
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.shards.codes import FitCodesConfig, fit
    from pipelines.tracking.session import standalone

    config = build(FitCodesConfig, layers)
    manifest = standalone(
        "fit-codes", partial(fit, config, machine=machine), output, settings=config, machine=machine
    )
    click.echo(f"mean squared distance to the nearest code: {manifest.mean_squared_distance:.4g}")
    click.echo(f"use it: objective.target.name={config.target.name} objective.target.codes={output}")
