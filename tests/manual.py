"""The README and the pages of docs/, as their users read them."""

import re
from collections.abc import Mapping

from tests.paths import REPOSITORY

PAGES: Mapping[str, str] = {
    file.stem: file.read_text()
    for file in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
}
"""Name of a page -> its text; the README is a page like the others."""


def blocks(language: str, text: str | None = None) -> list[str]:
    """The code of a language on all pages, or in one text; also where it is part of a list."""
    found = [text] if text is not None else PAGES.values()
    fences = [
        match
        for page in found
        for match in re.findall(rf"^( *)```{language}\n(.*?)^ *```", page, re.M | re.S)
    ]
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in fences]


def command_lines(text: str | None = None) -> list[str]:
    """The commands of shell blocks, each once, one a line, without comments."""
    joined = (block.replace("\\\n", " ") for block in blocks("bash", text))
    lines = [re.split(r"\s{2,}#|\s#\s", line)[0].strip() for block in joined for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def section(page: str, title: str) -> str:
    """What is below a heading of a page, up to the next one."""
    (text,) = re.findall(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGES[page], re.M | re.S)
    return text
