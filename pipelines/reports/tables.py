"""What was measured as tables, and how these look in Markdown and on a terminal."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from vlp.core.markdown import markdown_table


class Cell(NamedTuple):
    """One place of a table."""

    text: str
    link: str = ""
    note: str = ""
    """What is said where it is pointed at."""
    kind: str = ""
    """`better` or `worse` than the baseline by more than its noise; else empty."""


class Heading(NamedTuple):
    """Of a column."""

    text: str
    group: str = ""
    """What it shares with the columns beside it, such as their set."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.group, self.text) if part)


class Line(NamedTuple):
    """A line of a table."""

    cells: Sequence[Cell]
    kind: str = ""
    """`paper` or `chance`; empty for what was measured here."""


class Table(NamedTuple):
    """A table with what is to be known of it."""

    title: str
    header: Sequence[Heading]
    lines: Sequence[Line]
    remarks: Sequence[str] = ()

    def plain(self) -> "Table":
        """The same without addresses."""
        return self._replace(
            lines=[
                line._replace(cells=[cell._replace(link="") for cell in line.cells]) for line in self.lines
            ]
        )

    @property
    def groups(self) -> list[tuple[str, int]]:
        """What columns share, and how many they are, from the left."""
        found: list[tuple[str, int]] = []
        for heading in self.header:
            if found and found[-1][0] == heading.group:
                found[-1] = (heading.group, found[-1][1] + 1)
            else:
                found.append((heading.group, 1))
        return found


def texts(values: Sequence[str]) -> Line:
    """A line of plain texts."""
    return Line([Cell(value) for value in values])


def to_markdown(table: Table) -> str:
    """The table alone, without its title."""
    body = [[_linked(cell) for cell in line.cells] for line in table.lines]
    return markdown_table([str(heading) for heading in table.header], body)


def _linked(cell: Cell) -> str:
    return f"[{cell.text}]({cell.link})" if cell.link and cell.text else cell.text


def section(table: Table, *, level: int = 2) -> str:
    """The table below its title, and what is to be known of it."""
    remarks = "".join(f"\n{remark}\n" for remark in table.remarks)
    return f"{'#' * level} {table.title}\n\n{to_markdown(table)}{remarks}"


def print_table(table: Table) -> None:
    """Show it on the terminal, which may be narrower than it."""
    shown = RichTable(title=table.title, box=SIMPLE_HEAD)
    for heading in table.header:
        shown.add_column(str(heading).replace(" ", "\n", 1), no_wrap=True)
    for line in table.lines:
        shown.add_row(*(cell.text for cell in line.cells))
    widest = Console(width=1000).measure(shown).maximum
    Console(width=max(widest, Console().width)).print(shown)
