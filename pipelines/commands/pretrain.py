"""`vlp pretrain`: one method, trained."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("pretrain")
@click.option("-o", "--output", type=LOCAL, help="Folder of the run; resumed if it exists.")
def pretrain(settings: tuple[str, ...], output: Path | None) -> None:
    """Train one method, or go on with it.

    Example: vlp pretrain conf/run/flip.yaml conf/machine/one_gpu.yaml data.shards=shards mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from vlp.run import RunConfig

    config = build(RunConfig, layers)
    from pipelines.tracking.session import standalone
    from pipelines.training.checks import check_run
    from pipelines.training.identity import check_same_run, run_identity
    from pipelines.training.pretrain import pretrain

    check_run(config, machine)
    output = output or machine.storage / "pretrain" / f"{config.name}-{run_identity(config)[:8]}"
    check_same_run(config, output)
    manifest = standalone(config.name, pretrain, config, output, machine=machine)
    click.echo(f"checkpoint: {output / manifest['checkpoint']}")
