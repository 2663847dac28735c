"""`vlp pretrain`: one method, trained."""

from functools import partial
from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("pretrain")
@click.option("-o", "--output", type=LOCAL, help="Folder of the run; resumed if it exists.")
@click.option(
    "--from",
    "parent",
    type=LOCAL,
    help="Another run to go on from, further or on other data, with its optimizer and its step.",
)
def pretrain(settings: tuple[str, ...], output: Path | None, parent: Path | None) -> None:
    """Train one method, or go on with it.

    Example: vlp pretrain conf/run/flip.yaml conf/machine/one_gpu.yaml data.shards=shards mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build, check_still_named
    from vlp.run import RunConfig

    config = build(RunConfig, layers)
    check_still_named(layers)
    from pipelines.tracking.held import held
    from pipelines.tracking.session import alone, standalone
    from pipelines.training.claim import check_same_run
    from pipelines.training.continuation import find_start
    from pipelines.training.pretrain import pretrain
    from pipelines.training.resolved import resolve

    start = find_start(held(parent, machine), config) if parent else None
    run = resolve(config, machine, start=start.checkpoint if start else None)
    if start:
        click.echo(f"[{run.label}] {start.told(config)}")
    output = output or machine.work_folder / "pretrain" / run.folder_name
    check_same_run(run, output)
    work, name = partial(pretrain, run, machine=machine), run.config.name
    with alone(output, output=output):
        manifest = standalone("pretrain", work, output, settings=run.config, machine=machine, title=name)
    click.echo(f"checkpoint: {output / manifest.checkpoint}")
