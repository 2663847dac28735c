"""`vlp sweep`: the best settings of a run, searched."""

import click

from pipelines.commands.group import read, settings_command


@settings_command("sweep")
def sweep(settings: tuple[str, ...]) -> None:
    """Search the best settings of a run, or go on with the search.

    Example: vlp sweep conf/sweep/anchor_ratio.yaml conf/machine/laptop.yaml
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.sweeps.settings import SweepConfig

    config = build(SweepConfig, layers)
    from pipelines.sweeps.sweep import sweep
    from pipelines.tracking.session import tracked

    with tracked(machine, experiment=config.name):
        best = sweep(config, machine=machine)
    click.echo(f"best: {best.metric} = {best.score:.4f} with {' '.join(best.overrides)}")
    click.echo(f"config: {best.config}\ntrain it: vlp pretrain {best.config}")
