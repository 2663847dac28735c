"""`vlp settings`: what every setting is, with its type, default and bounds."""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.config.catalog import Entry

WIDTH, INDENT = 100, "    "


@click.command("settings")
@click.argument("key", default="")
def settings(key: str) -> None:
    """Say what the settings under KEY are: type, bounds, default and meaning of each.

    KEY is as in an override, such as training.length, or a component, such as mask.cluster; those of other
    commands are under their names, such as download.timeout, and those of the machine under machine.
    Without KEY, the keys at the top are listed.

    Example: vlp settings mask.cluster
    """
    from pipelines.commands.schemas import all_settings
    from pipelines.config.catalog import find

    if key:
        for entry in find(key, all_settings()):
            click.echo("\n".join(_lines(entry)))
    else:
        for entry in all_settings():
            click.echo(f"{entry.key:14} {entry.text.partition('.')[0]}".replace("\n", " "))


def _lines(entry: "Entry") -> Iterator[str]:
    """An entry, and all that is below it; of components only what each is."""
    default = f" = {entry.default}" if entry.default else ""
    yield f"{entry.key}: {entry.kind}{', required' if entry.is_required else default}"
    yield from _indented(entry.text)
    if entry.choices:
        for name, config in entry.choices.items():
            yield from _indented(f"- {name}: {(config.__doc__ or '').partition(chr(10))[0]}")
        yield from _indented(
            f"What each takes: vlp settings {entry.key}.{next(iter(entry.choices))}, and so on."
        )
    else:
        for below in entry.below():
            yield from _lines(below)


def _indented(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
