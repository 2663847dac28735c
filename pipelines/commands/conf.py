"""`vlp conf`: the files of settings that come with vlp."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click

from pipelines.commands.group import LOCAL

INSTALLED = "share/vlp/conf/run/clip.yaml"
"""Where an installation has the files, one of them."""


@click.group()
def conf() -> None:
    """The files of runs, pipelines, sweeps and machines that come with vlp.

    Example: vlp conf copy
    """


@conf.command("list")
def list_command() -> None:
    """Name the files.

    Example: vlp conf list
    """
    folder = conf_folder()
    for file in conf_files(folder):
        click.echo(f"conf/{file.relative_to(folder)}")


@conf.command("copy")
@click.argument("folder", type=LOCAL, default="conf")
def copy_command(folder: Path) -> None:
    """Copy the files into FOLDER, `conf` by default, to use and to edit; what is there stays as it is.

    Example: vlp conf copy
    """
    source = conf_folder()
    copied = [file for file in conf_files(source) if _copy(file, folder / file.relative_to(source))]
    kept = len(conf_files(source)) - len(copied)
    click.echo(f"{len(copied)} files: {folder}{f' ({kept} were there before)' if kept else ''}")


def conf_folder() -> Path:
    """The files' folder: the repository's, or an installation's.

    Raises:
        UserError: there is none.
    """
    from pipelines.config.errors import UserError

    places = [Path(__file__).parents[2] / "conf", *_installed()]
    for place in places:
        if (place / "run" / "clip.yaml").is_file():
            return place
    raise UserError("the files of conf/ are not installed; install vlp again")


def conf_files(folder: Path) -> list[Path]:
    """All of them, in order."""
    return sorted(folder.rglob("*.yaml"))


def _installed() -> list[Path]:
    try:
        files = distribution("vlp").files or []
    except PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve().parents[1] for file in files if str(file).endswith(INSTALLED)]


def _copy(file: Path, target: Path) -> bool:
    """Whether the file was not there before."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
    return True
