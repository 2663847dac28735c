"""`vlp plan`: what a run, a pipeline or a sweep will take, before it is spent."""

from typing import Any

import click

from pipelines.commands.group import read, settings_command


@settings_command("plan")
@click.option("--measure", "is_measured", is_flag=True, help="Do some seconds of each stage first.")
@click.option("--urls", type=float, help="URLs of a list that is not on this machine.")
@click.option("--success", type=click.FloatRange(0, 1), help="Share of the URLs that gives an image.")
@click.option("--gigabits", type=float, default=1.0, show_default=True, help="Bandwidth, per second.")
@click.option("--price", type=float, help="Of a GPU for an hour; of a CPU core where no GPU is used.")
@click.option("--budget", type=float, help="What may be spent: how many such trainings fit in it.")
def plan(settings: tuple[str, ...], is_measured: bool, urls: float | None, **given: Any) -> None:
    """Say what a run, a pipeline or a sweep will take: images, bytes, hours, memory, GPU hours, cost.

    Each line says what it rests on: rates that --measure has found on such a machine and kept in
    machine.storage, or those of the manual.

    Example: vlp plan conf/pipeline/cc12m.yaml conf/machine/one_gpu.yaml --urls 12e6
    """
    layers, machine = read(settings)
    from pipelines.estimates.estimate import estimate
    from pipelines.estimates.files import read_planned
    from pipelines.estimates.rates import Rates
    from pipelines.estimates.work import Given

    wanted = Given(urls=None if urls is None else int(urls), **given)
    planned, rates = read_planned(layers, machine, wanted), Rates.read(machine)
    if is_measured:
        from pipelines.estimates.measure import measured

        rates = measured(planned, rates, machine)
        click.echo(f"rates: {rates.write(machine)}")
    for line in estimate(planned.data, planned.trainings, rates, machine, wanted).lines:
        click.echo(f"{line.what:28}  {line.value:50}  {line.rests_on}")
