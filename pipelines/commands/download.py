"""`vlp download`: a URL list to shards."""

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from pipelines.commands.group import FOLDER, read, settings_command

if TYPE_CHECKING:
    from vlp.shards.storage.folder import Folder


@settings_command("download")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the shards.")
@click.option("--retry-failed", is_flag=True, help="Then ask again for what failed, into shards of its own.")
@click.option("--only", default="", help="Outcomes to ask again for, such as timeout,dns,http_5xx.")
def download(settings: tuple[str, ...], output: "Folder", retry_failed: bool, only: str) -> None:
    """Download the images of a URL list into shards, or go on where it was.

    Example: vlp download url_list=cc12m.tsv image_size=224 -o shards
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.ingest.settings import DownloadConfig

    config = build(DownloadConfig, layers)
    from pipelines.ingest.download import download, plan
    from pipelines.ingest.plan import read_retry
    from pipelines.tracking.session import standalone

    retry = read_retry(only) if retry_failed or only else None
    plan(config, output)
    work = partial(download, config, machine=machine, retry=retry)
    manifest = standalone("download", work, output, settings=config, machine=machine)
    click.echo(f"{manifest.num_samples:,} of {manifest.num_urls:,} URLs succeeded: {output}")
    if not manifest.num_samples:
        click.echo(f"vlp: every URL failed; {output}/outcomes.csv counts the reasons", err=True)
        sys.exit(1)
