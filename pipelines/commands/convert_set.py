"""`vlp convert-set`: a set of images, as others keep it, as an evaluation set."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("convert-set")
@click.option("-o", "--output", type=LOCAL, required=True, help="Folder of the evaluation set.")
def convert_set(settings: tuple[str, ...], output: Path) -> None:
    """Make an evaluation set of images in folders of classes, in files of others, or beside captions.

    Example: vlp convert-set layout.name=image_folder layout.folder=imagenette -o sets/imagenette
    """
    layers, _ = read(settings)
    from pipelines.config.settings import build
    from pipelines.evaluation.convert_set import ConvertSetConfig, convert_set

    made = convert_set(build(ConvertSetConfig, layers), output)
    counts = ", ".join(f"{table.num_rows:,} in {table.place}" for table in made.tables)
    click.echo(f"{counts}; use it: evaluation.{made.key}={output}")
