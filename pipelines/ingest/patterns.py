"""Names of many files as one: braces as a shell expands them, and its wildcards."""

import glob
import re
from pathlib import Path

from pipelines.config.errors import ConfigError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(text: str) -> bool:
    """Whether a name stands for others."""
    return BRACES.search(text) is not None or glob.has_magic(text)


def expand(pattern: Path) -> list[Path]:
    """The files that a pattern names, in its order, and by name where it has wildcards.

    Raises:
        ConfigError: one of them is not there.
    """
    files: list[Path] = []
    for text in expand_braces(str(pattern)):
        found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
        files += [file for file in map(Path, found) if file.is_file()]
        if not found or not Path(found[0]).exists():
            raise ConfigError(f"url_list: {pattern} names {text}, and there is no such file")
    return files


def expand_braces(text: str) -> list[str]:
    """`{00..02}` as three texts, with as many digits, and `{a,b}` as two; others stay as they are."""
    for match in BRACES.finditer(text):
        inner = match[1]
        if found := RANGE.fullmatch(inner):
            low, high = int(found[1]), int(found[2])
            digits = max(map(len, found.groups())) if inner.startswith("0") else 0
            parts = [f"{number:0{digits}d}" for number in range(low, high + 1)]
        elif "," in inner:
            parts = inner.split(",")
        else:
            continue
        before, after = text[: match.start()], text[match.end() :]
        return [whole for part in parts for whole in expand_braces(before + part + after)]
    return [text]


def folder_of(pattern: Path) -> Path:
    """The folder that all files of a pattern are in, or below."""
    parts = pattern.parts
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts) - 1)
    return Path(*parts[:first])
