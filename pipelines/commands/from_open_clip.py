"""`vlp from-open-clip`: a training command of open_clip as a run's file."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL


@click.command("from-open-clip", context_settings={"ignore_unknown_options": True})
@click.option("-o", "--output", type=LOCAL, help="File of the run; else it is printed.")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def from_open_clip(output: Path | None, arguments: tuple[str, ...]) -> None:
    """Turn a training command of open_clip into the file of a run, which `vlp pretrain` takes.

    What has no counterpart is named, with what to do in its place.

    Example: vlp from-open-clip --model ViT-B-32 --train-data 'cc3m/{0..331}.tar' --train-num-samples 2905954
    """
    import yaml

    from pipelines.config.errors import UserError
    from pipelines.config.open_clip import translate

    found = translate(arguments)
    text = "# Made of a training command of open_clip.\n" + yaml.safe_dump(found.settings, sort_keys=False)
    if output is None:
        click.echo(text, nl=False)
    elif output.exists():
        raise UserError(f"{output} is there already; choose another name")
    else:
        output.write_text(text)
    for remark in found.remarks:
        click.echo(f"no counterpart: {remark}", err=True)
