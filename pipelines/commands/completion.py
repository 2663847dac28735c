"""Completion in the shell of files, settings and their values, as far as the words before them say which."""

import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pipelines.config.settings import Layers


def complete_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may follow: `mask.<TAB>` gives the mask's settings, `mask.name=<TAB>` the masks.

    Bash gives `mask.name=ran` as three words, of which only the last is completed; others give it as one.
    """
    words = [str(word) for word in ctx.params.get(param.name or "") or ()]
    if words[-1:] == ["="]:
        return _items(_values(ctx.info_name, words[:-2], words[-2], incomplete))
    if not incomplete and words and _is_key(words[-1]):  # click leaves out an equals sign at the end
        return _items(_values(ctx.info_name, words[:-1], words[-1], ""))
    key, has_value, value = incomplete.partition("=")
    if has_value:
        return _items(f"{key}={one}" for one in _values(ctx.info_name, words, key, value))
    keys = [f"{one}=" for one in _keys(ctx.info_name, words) if one.startswith(incomplete)]
    return [*_items(keys), CompletionItem(incomplete, type="file")]


def _is_key(word: str) -> bool:
    """Whether a word is the beginning of a setting that bash has cut at its equals sign."""
    return "=" not in word and not word.endswith((".yaml", ".yml"))


def _items(words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words]


def _layers(words: Sequence[str]) -> "Layers":
    """The settings of the words so far; of those that cannot be read, none."""
    from pipelines.config.errors import UserError
    from pipelines.config.settings import Layers, read_layers

    joined = " ".join(words).replace(" = ", "=").split()
    try:
        return read_layers(joined)
    except UserError:
        return Layers()


def _keys(command: str | None, words: Sequence[str]) -> Iterator[str]:
    """Settings of the command, and of the machine."""
    from pipelines.commands.schemas import config_of
    from pipelines.config.machine import MachineConfig
    from pipelines.config.schema import dotted_keys

    values = _layers(words).merged()
    if config := config_of(command or ""):
        yield from sorted(set(dotted_keys(config, values)))
    yield from (f"machine.{key}" for key in dotted_keys(MachineConfig, values.get("machine")))


def _values(command: str | None, words: Sequence[str], key: str, begun: str) -> Iterator[str]:
    """Choices of a setting: components by name, words that it allows, true and false."""
    from pipelines.commands.schemas import config_of
    from pipelines.config.machine import MachineConfig

    values, parts = _layers(words).merged(), key.split(".")
    if parts[0] == "machine":
        found = _choices(MachineConfig, parts[1:], values.get("machine"))
    else:
        found = _choices(config_of(command or ""), parts, values)
    yield from (one for one in found if one.startswith(begun))


def _choices(config: Any, key: Sequence[str], values: Any) -> Iterator[str]:
    """Of one setting below a config class."""
    from pipelines.config.schema import hint_below, marker_of, members_of
    from vlp.core.registry import ByName

    hint: Any = config
    for part in key:
        if part == "name" and (marker := marker_of(hint, ByName)):
            yield from sorted(marker.registry)
            return
        hint = hint_below(hint, part, values)
        values = values.get(part) if isinstance(values, dict) else None
    for member in members_of(hint):
        if typing.get_origin(member) is typing.Literal:
            yield from map(str, typing.get_args(member))
        elif member is bool:
            yield from ("true", "false")
