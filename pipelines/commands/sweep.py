"""`vlp sweep`: the best settings of a run, searched."""

import click

from pipelines.commands.group import read, settings_command


@settings_command("sweep")
@click.option("--partial", is_flag=True, help="Show the best so far, without doing anything.")
def sweep(settings: tuple[str, ...], partial: bool) -> None:
    """Search the best settings of a run, or go on with the search.

    Example: vlp sweep conf/sweep/anchor_ratio.yaml conf/machine/laptop.yaml
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.sweeps.settings import SweepConfig

    config = build(SweepConfig, layers)
    from pipelines.sweeps.report import print_table
    from pipelines.sweeps.sweep import sweep, sweep_so_far
    from pipelines.tracking.session import tracked

    if partial:
        outcome = sweep_so_far(config, machine=machine)
        print_table(outcome)
        for one in outcome.best:
            click.echo(f"best so far: {outcome.said(one)}")
        if not outcome.best:
            click.echo("best so far: no setting was trained to the end")
        return
    with tracked(machine, experiment=config.name):
        outcome = sweep(config, machine=machine)
    print_table(outcome)
    for one in outcome.best:
        file = outcome.file(one)
        click.echo(f"best: {outcome.said(one)}\nconfig: {file}\ntrain it: vlp pretrain {file}")
