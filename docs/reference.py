"""The pages that are made from the code: settings, commands and the library."""

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
from sphinx.application import Sphinx

import vlp
from pipelines.commands.main import main
from pipelines.commands.schemas import all_settings
from pipelines.config import open_clip
from pipelines.config.catalog import Entry
from pipelines.ingest.settings import COUNTERPARTS

LEFT_OUT = {"vlp.contracts", "vlp.serving"}
"""Tests, and what MLflow loads."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the pages written before Sphinx looks for them."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True}


def write_pages(folder: Path) -> None:
    """Write every page of the reference."""
    pages = {"commands": command_page(), "settings": settings_page(), "library": library_page()}
    pages |= {f"settings_{entry.key}": "\n".join(setting_lines(entry)) for entry in settings_with_page()}
    pages |= {f"library_{name}": room_page(name) for name in rooms()}
    folder.mkdir(exist_ok=True)
    files = {f"{name}.md": text for name, text in pages.items()} | {
        "img2dataset.txt": table("img2dataset", COUNTERPARTS),
        "open_clip_settings.txt": table("open_clip", as_flags(open_clip.SETTINGS)),
        "open_clip_others.txt": table("open_clip", as_flags(open_clip.REMEDIES)),
    }
    for name, text in files.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def command_page() -> str:
    """The help of every command."""
    parts = ["# Commands", "", "What `vlp COMMAND --help` says.", ""]
    for name, command in commands(main, "vlp"):
        context = click.Context(command, info_name=name, max_content_width=100)
        parts += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(parts)


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """Each command with its whole name; those of a group one by one."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def settings_page() -> str:
    """All keys at the top, each a link to its page where it has settings of its own."""
    own = {entry.key for entry in settings_with_page()}
    lines = [
        "# Settings",
        "",
        "Made from the code. `vlp settings KEY` says the same on the command line.",
        "",
    ]
    lines += ["A run's file has the keys from `name` to `evaluation`. The keys after them are what the other"]
    lines += ["commands take, written without the name of the command; `machine` is for every command.", ""]
    for entry in all_settings():
        name = f"[`{entry.key}`](settings_{entry.key}.md)" if entry.key in own else f"`{entry.key}`"
        lines.append(f"- {name}: {described(entry)}")
    listed = "\n".join(f"settings_{key}" for key in sorted(own))
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", listed, "```", ""])


def settings_with_page() -> list[Entry]:
    """The settings at the top that have others below them."""
    return [entry for entry in all_settings() if entry.choices or any(True for _ in entry.below())]


def setting_lines(entry: Entry, depth: int = 1) -> Iterator[str]:
    """A setting with all that is below it; the components that it may be have a heading each."""
    yield from ("#" * depth + f" {entry.key}", "", described(entry), "")
    deeper: list[Entry] = []
    if entry.choices:
        for name in entry.choices:
            (component,) = entry.step(name)
            deeper.append(component)
    else:
        yield from below_lines(entry, deeper)
    for one in deeper:
        if one.kind.startswith("{name: "):
            yield from component_lines(one, depth + 1)
        else:
            yield from setting_lines(one, depth + 1)


def component_lines(entry: Entry, depth: int) -> Iterator[str]:
    """A component by its name, with its settings."""
    deeper: list[Entry] = []
    yield from ("#" * depth + f" {entry.key}: {entry.kind}", "", as_text(entry.text), "")
    yield from below_lines(entry, deeper)
    for one in deeper:
        yield from setting_lines(one, depth + 1)


def below_lines(entry: Entry, deeper: list[Entry]) -> Iterator[str]:
    """One item per setting below an entry; those with settings of their own are put aside."""
    for below in entry.below():
        if below.choices or any(True for _ in below.below()):
            deeper.append(below)
        else:
            yield f"- `{below.key}`: {described(below)}"
    yield ""


def described(entry: Entry) -> str:
    """Type, default and meaning of a setting."""
    default = (
        "; required" if entry.is_required else f"; `{entry.default}` by default" if entry.default else ""
    )
    return f"*{as_text(entry.kind)}{default}.* {as_text(entry.text)}"


def as_text(text: str) -> str:
    """A docstring as one line of Markdown."""
    plain = " ".join(text.split())
    return "".join(part if place % 2 else escaped(part) for place, part in enumerate(split_code(plain)))


def split_code(text: str) -> list[str]:
    """Text and code in turn; the backticks stay with the code."""
    parts = text.split("`")
    return [f"`{part}`" if place % 2 else part for place, part in enumerate(parts)]


def escaped(text: str) -> str:
    """Letters that Markdown would read as its own."""
    for letter in "*_[]<>$|":
        text = text.replace(letter, f"\\{letter}")
    return text


def table(tool: str, remedies: Mapping[str, str]) -> str:
    """What there is here of another tool's options."""
    rows = [f"| `{option}` | {as_text(remedy)} |" for option, remedy in remedies.items()]
    return "\n".join([f"| {tool} | here |", "|---|---|", *rows, ""])


def as_flags(remedies: Mapping[str, str]) -> Mapping[str, str]:
    """Names of a program's arguments as they are written."""
    return {f"--{name.replace('_', '-')}": remedy for name, remedy in remedies.items()}


def library_page() -> str:
    """The rooms of the library."""
    lines = [
        "# Library",
        "",
        "Plain PyTorch, for notebooks and for code of your own. Made from the docstrings, whose",
    ]
    lines += [
        "letters for shapes are those of `help(vlp)`. Start with `vlp.load` ([a model](../models.md)).",
        "",
    ]
    lines += [
        f"- [vlp.{name}](library_{name}.md): {first_line(import_module(f'vlp.{name}'))}" for name in rooms()
    ]
    listed = "\n".join(f"library_{name}" for name in rooms())
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", listed, "```", ""])


def rooms() -> list[str]:
    """The modules and packages right below `vlp`."""
    names = (found.name for found in pkgutil.iter_modules(vlp.__path__))
    return [name for name in names if f"vlp.{name}" not in LEFT_OUT]


def room_page(name: str) -> str:
    """What a room holds, module by module."""
    modules = sorted(modules_of(f"vlp.{name}"))
    lines = [f"# vlp.{name}", ""]
    for module in modules:
        title = [f"## {module}", ""] if module != f"vlp.{name}" else []
        lines += [*title, "```{eval-rst}", f".. automodule:: {module}", "```", ""]
    return "\n".join(lines)


def modules_of(name: str) -> Iterator[str]:
    """A module, and those below it that are public."""
    yield name
    for found in pkgutil.walk_packages(getattr(import_module(name), "__path__", []), f"{name}."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


def first_line(module: ModuleType) -> str:
    """The first line of a module's docstring."""
    return as_text((module.__doc__ or "").strip().partition("\n")[0])
