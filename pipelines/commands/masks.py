"""`vlp masks`: what masks hide of one's own images, before anything is trained."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read


@click.command("masks")
@click.argument("given", nargs=-1, metavar="IMAGES... [RUN.yaml ...] [KEY=VALUE ...]")
@click.option("-o", "--output", type=LOCAL, default="masks", show_default=True, help="Folder of the results.")
@click.option(
    "-n", "--number", type=click.IntRange(1, 12), default=6, show_default=True, help="Images that are shown."
)
@click.option(
    "--progress",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the training, for masks that change with it.",
)
def masks(given: tuple[str, ...], output: Path, number: int, progress: float) -> None:
    """Show what masks hide of images: every registered mask, or those of the runs.

    IMAGES are files and folders. Pictures are drawn as the runs and the overrides say. The page, one file
    that needs nothing else, has sliders for the ratio of anchors, the ratio that is to be hidden, alpha and
    the seed. An override such as mask.mask_ratio=0.75 is for the masks that have the setting. Masks that look
    through a network take its weights from init_from, or untrained ones; machine.* settings say where MLflow
    is that init_from.path=runs:/RUN_ID names. `vlp settings mask` says what each mask can be set to.

    Example: vlp masks photos conf/run/cluster_rgb.yaml mask.anchor_ratio=0.05 -o masks
    """
    places, files, overrides = _sorted(given)
    from pipelines.config.errors import UserError
    from pipelines.training.mask_runs import given_runs, registered_runs
    from pipelines.training.mask_study import read_photos, study_masks

    if not places:
        raise UserError("no image is given; name some, or a folder of them: vlp masks photos")
    photos = read_photos(places, number)
    own = tuple(text for text in overrides if text.startswith("machine."))
    machine = read(own)[1]
    overrides = [text for text in overrides if text not in own]
    layers = [read((file,))[0] for file in files]
    runs = given_runs(layers, overrides) if layers else registered_runs(overrides)
    for line in study_masks(runs, photos, output, machine=machine, progress=progress):
        click.echo(line)


def _sorted(given: tuple[str, ...]) -> tuple[list[Path], list[str], list[str]]:
    """Places of images, files of runs, and overrides."""
    files = [text for text in given if text.endswith((".yaml", ".yml")) and "=" not in text]
    overrides = [text for text in given if "=" in text and not Path(text).exists()]
    return [Path(text) for text in given if text not in {*files, *overrides}], files, overrides
