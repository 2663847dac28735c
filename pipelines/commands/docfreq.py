"""`vlp docfreq`: in how many captions each token occurs."""

from functools import partial
from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("docfreq")
@click.option("-o", "--output", type=LOCAL, required=True, help="Folder of the table.")
def docfreq(settings: tuple[str, ...], output: Path) -> None:
    """Count in how many captions each token occurs.

    Example: vlp docfreq shards=shards tokenizer.name=clip_bpe -o frequencies
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.shards.docfreq import TABLE, DocfreqConfig, check_shards, docfreq
    from pipelines.tracking.session import standalone

    config = build(DocfreqConfig, layers)
    check_shards(config.shards)
    config.build()
    manifest = standalone(
        "docfreq", partial(docfreq, config, machine=machine), output, settings=config, machine=machine
    )
    counts = f"{manifest.num_distinct_tokens:,} tokens in {manifest.num_documents:,} captions"
    click.echo(f"{counts}: {output / TABLE}")
