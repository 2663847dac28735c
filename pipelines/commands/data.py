"""`vlp data`: the commands on folders of shards. Everything heavy is imported within them."""

import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.group import FOLDER, INPUT, LOCAL, read, read_machine, settings_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.config.machine import MachineConfig
    from pipelines.tracking.session import Work
    from vlp.shards.selection import SelectionManifest
    from vlp.shards.storage.folder import Folder

OUTPUT = click.option("-o", "--output", type=LOCAL, required=True, help="Folder of the new shards.")

SELECTION = click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the selection.")


@click.group("data")
def data() -> None:
    """Index, verify, describe, merge, cut, balance, score and make folders of shards.

    Example: vlp data verify shards
    """


@data.command("index")
@click.argument("folder", type=LOCAL)
@click.argument("settings", nargs=-1)
def index_command(folder: Path, settings: tuple[str, ...]) -> None:
    """Index tars that img2dataset or webdataset wrote where they lie, so that all commands read them.

    Writes a .parquet and a _stats.json beside each tar; columns and counts that are there are kept. SETTINGS
    are `machine.*` settings or files of conf/machine/, and which members are what where other endings than
    usual tell: image_endings=[input.jpg] caption_endings=[prompt.txt].

    Example: vlp data index laion machine.data_workers=16
    """
    from pipelines.config.errors import ConfigError, nearest
    from pipelines.config.machine import read_settings
    from pipelines.config.settings import build
    from pipelines.shards.index import IndexConfig, index
    from vlp.shards.outcome import SUCCESS

    layers, machine = read_settings(settings)
    names = [field.name for field in fields(IndexConfig)]
    for key in set(layers.merged()) - set(names):
        raise ConfigError(f"{key} is not a setting{nearest(key, [*names, 'machine'])}")
    manifest = index(folder, build(IndexConfig, layers), machine=machine)
    for shard in manifest.shards:
        if shard.problem:
            click.echo(f"{shard.name}.tar: broken, {shard.successes:,} samples read: {shard.problem}")
    others = {outcome: n for outcome, n in manifest.outcomes.items() if outcome != SUCCESS}
    counted = "".join(f", {n:,} {outcome}" for outcome, n in others.items())
    if manifest.num_without_captions:
        counted += f", {manifest.num_without_captions:,} without captions"
    for line in _reasons(folder):
        click.echo(line)
    click.echo(f"{manifest.num_samples:,} samples in {len(manifest.shards):,} tars{counted}: {folder}")


def _reasons(folder: Path) -> "Iterator[str]":
    """One line for each outcome of samples that cannot be used and have a reason, with an example."""
    from vlp.shards.contents import ShardsManifest, ShardStats
    from vlp.shards.storage.local import LocalFolder
    from vlp.shards.tar_samples import OF_TARS

    told = set[str]()
    for shard in ShardsManifest.read(folder).shards:
        for outcome, found in (ShardStats.read(LocalFolder(folder), shard.name).examples or {}).items():
            if outcome in OF_TARS and outcome not in told and found[0]["error"]:
                told.add(outcome)
                yield f"{outcome}, such as {found[0]['url']} of {shard.name}.tar: {found[0]['error']}"


@data.command("verify")
@click.argument("folder", type=FOLDER)
def verify_command(folder: "Folder") -> None:
    """Hold every tar, index and count against the others; one line per problem, and exit code 1 if any.

    Example: vlp data verify shards
    """
    from pipelines.shards.verify import verify

    num_problems = 0
    for problem in verify(folder):
        click.echo(problem)
        num_problems += 1
    if num_problems:
        sys.exit(1)
    click.echo(f"{folder}: whole")


@data.command("describe")
@click.argument("folder", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, help="Folder of the card and picture; else FOLDER/card.")
def describe_command(folder: "Folder", output: "Folder | None") -> None:
    """Print a data card: counts, sizes, captions and outcomes; also written, with a picture.

    Example: vlp data describe shards
    """
    from pipelines.shards.describe import describe

    click.echo(describe(folder, output or folder / "card"), nl=False)


@data.command("merge")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@OUTPUT
def merge_command(folders: "tuple[Folder, ...]", output: Path) -> None:
    """Copy several folders into one with fresh keys, the image of a URL once, with all its captions.

    Example: vlp data merge shards more_shards -o all_shards
    """
    from pipelines.shards.merge import merge

    manifest = merge(folders, output)
    repeated = f"{manifest.described['num_repeated_urls']:,} repeated URLs left out"
    renamed = f"{manifest.described['num_repeated_keys']:,} repeated keys renamed"
    click.echo(f"{manifest.num_samples:,} samples, {repeated}, {renamed}: {output}")


@data.command("subset")
@click.argument("folder", type=FOLDER)
@click.argument("selection", nargs=-1, required=True)
@OUTPUT
def subset_command(folder: "Folder", selection: tuple[str, ...], output: Path) -> None:
    """Copy the samples that are listed, and whose index allows it, into a folder of their own.

    SELECTION is keys=FILE (one key per line, or a Parquet file with a column `key`), and comparisons of a
    column of the index, such as 'original_width>=256' or status==success. All of them have to hold. With
    selection=FOLDER, which `vlp data balance` or `vlp data score` made, also of its columns.

    Example: vlp data subset shards keys=good.txt 'original_width>=256' -o good_shards
    """
    from pipelines.shards.subset import subset

    manifest = subset(folder, selection, output)
    click.echo(f"{manifest.num_samples:,} samples of {manifest.num_urls:,} rows taken: {output}")


@settings_command("balance")
@click.argument("shards", type=FOLDER)
@click.option("--docfreq", type=FOLDER, required=True, help="Folder that `vlp docfreq` made.")
@SELECTION
def balance_command(settings: tuple[str, ...], shards: "Folder", docfreq: "Folder", output: "Folder") -> None:
    """Select samples as MetaCLIP balances them: captions of frequent tokens alone are thinned out.

    Nothing is copied: `kept==true` is a condition for training (data.where, data.selections) and `subset`.

    Example: vlp data balance shards --docfreq frequencies -o balanced t=20000
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.curation.balance import BalanceConfig, balance
    from pipelines.curation.making import open_source

    given = {"shards": str(shards), "docfreq": str(docfreq)}
    config = build(BalanceConfig, layers.add(given, "the command line"))
    open_source(config.shards)
    config.counts(config.build())
    _select("balance", partial(balance, config, machine=machine), output, config, machine)


@settings_command("score")
@click.argument("shards", type=FOLDER)
@click.option("--checkpoint", type=INPUT, required=True, help="As the checkpoint of `vlp evaluate`.")
@SELECTION
def score_command(settings: tuple[str, ...], shards: "Folder", checkpoint: Path, output: "Folder") -> None:
    """Score how well images and captions fit, and what DataComp's basic filter reads, to select by.

    The columns are similarity, words, characters, shorter_side and aspect; SETTINGS are `machine.*` alone.

    Example: vlp data score shards --checkpoint results/pretrain/clip-1a2b3c4d -o scored
    """
    machine = read_machine(settings)
    from pipelines.curation.making import open_source
    from pipelines.curation.score import ScoreConfig, check_scorer, score
    from pipelines.tracking.held import held

    open_source(shards)
    config = ScoreConfig(shards=shards, checkpoint=held(checkpoint, machine))
    check_scorer(config.checkpoint)
    _select("score", partial(score, config, machine=machine), output, config, machine)


def _select(
    stage: str, work: "Work[SelectionManifest]", output: "Folder", config: object, machine: "MachineConfig"
) -> None:
    """Make a selection, and print its summary."""
    from pipelines.curation.making import TABLE, check_output
    from pipelines.tracking.session import standalone

    check_output(output)
    manifest = standalone(stage, work, output, settings=config, machine=machine)
    click.echo(output.read(TABLE).decode())
    columns = ", ".join(manifest.columns)
    click.echo(
        f"{columns}; use it: selection={output} in `vlp data subset`, data.selections=[{output}] in training"
    )


@data.command("from-set")
@click.argument("folder", type=FOLDER)
@click.option("--split", type=click.Choice(["train", "test"]), default="train", help="Which images.")
@OUTPUT
def from_set_command(folder: "Folder", split: str, output: Path) -> None:
    """Make shards of a labelled evaluation set, with the names of classes as captions, to fine-tune on.

    FOLDER has train.parquet and meta.json, as `vlp convert-set` writes it of folders of classes and others.

    Example: vlp data from-set sets/imagenette -o imagenette_shards
    """
    from pipelines.shards.from_set import from_set

    manifest = from_set(folder, output, split=split)
    click.echo(
        f"{manifest.num_samples:,} samples: {output}; their classes: tokenizer.name=classes "
        f"tokenizer.path={folder / 'meta.json'}"
    )


data.add_command(balance_command)
data.add_command(score_command)
