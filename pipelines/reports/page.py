"""A report as one page of Markdown, with pictures beside it, and as one of HTML with nothing beside it."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipelines.reports.comparison import Comparison, headings, relative_time
from pipelines.reports.measured import Measured
from pipelines.reports.protocol_tables import ARXIV, protocol_tables
from pipelines.reports.summary import remarks, summary_tables, time_text
from pipelines.reports.tables import Cell, Heading, Line, Table, section
from vlp.pictures.confusion import confusion_matrices
from vlp.pictures.curves import Bars, bar_charts
from vlp.pictures.pareto import Reached, pareto_charts

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)
TEMPLATE = "page.html"
PICTURES = "pictures"


class Picture(NamedTuple):
    """One picture of a page."""

    title: str
    image: Image.Image


class Section(NamedTuple):
    """A part of a page."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[str] = ()

    @property
    def anchor(self) -> str:
        """By which it is linked to."""
        return _slug(self.title)


def report_sections(
    comparison: Comparison, measured: Sequence[Measured], *, ablations: Sequence[Table] = ()
) -> list[Section]:
    """All parts of a report.

    Args:
        measured: what is compared; of several seeds of a method the first has the pictures.
        ablations: tables of sweeps.
    """
    charts = [Picture("Methods side by side", comparison_chart(comparison))]
    if (reached := pareto_chart(comparison)) is not None:
        charts.append(Picture("What is reached, for what it costs", reached))
    found = [
        Section("Methods", [_about(comparison)], charts, remarks(comparison)),
        *(Section(table.title, [table]) for table in protocol_tables(comparison)),
        *(Section(table.title, [table]) for table in summary_tables(comparison)[1:]),
        *(Section(table.title, [table]) for table in ablations),
    ]
    if comparison.confusions:
        found.append(Section("Confusion matrices", pictures=_confusions(comparison)))
    return [*found, *_looked_at(measured)]


def write_page(folder: Path, comparison: Comparison, sections: Sequence[Section]) -> None:
    """Write `report.md`, `report.html` and `report.json`, with the pictures of the first in a folder."""
    (folder / "report.json").write_text(json.dumps([asdict(row) for row in comparison.rows], indent=1))
    (folder / "report.md").write_text(to_markdown_page(comparison.name, sections), encoding="utf-8")
    (folder / "report.html").write_text(to_html(comparison.name, sections), encoding="utf-8")
    (folder / PICTURES).mkdir(exist_ok=True)
    for part in sections:
        for picture in part.pictures:
            picture.image.save(folder / PICTURES / _file(part, picture))


def to_markdown_page(name: str, sections: Sequence[Section]) -> str:
    """The page, with addresses of pictures in the folder beside it."""
    return _numbered("\n".join([f"# {name}\n", *map(_markdown_section, sections)]))


def _numbered(text: str) -> str:
    """The same with its long addresses at the end, each once, so that tables can be read as they stand."""
    places: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"][{places.setdefault(found[1], len(places) + 1)}]"

    shorter = re.sub(r"\]\((\w+://[^)\s]+|\.\./[^)\s]+)\)", number, text)
    return shorter + "".join(f"\n[{place}]: {address}" for address, place in places.items()) + "\n"


def _markdown_section(part: Section) -> str:
    tables = [section(table).partition("\n\n")[2] for table in part.tables]
    lines = [f"{remark}\n" for remark in part.remarks]
    pictures = [
        f"![{picture.title}]({PICTURES}/{_file(part, picture)})\n\n{picture.title}\n"
        for picture in part.pictures
    ]
    return "\n".join([f"## {part.title}\n", *tables, *lines, *pictures])


def to_html(name: str, sections: Sequence[Section]) -> str:
    """The page, which is whole in itself."""
    template = TEMPLATES.get_template(TEMPLATE)
    return template.render(name=name, sections=sections, data_uri=data_uri)


def data_uri(image: Image.Image) -> str:
    """An image within an address: as JPEG or PNG, whichever is smaller."""
    forms = {kind: _encoded(image, kind) for kind in ("png", "jpeg")}
    kind = min(forms, key=lambda kind: len(forms[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(forms[kind]).decode()}"


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, kind, quality=88, optimize=True)
    return stream.getvalue()


def _file(part: Section, picture: Picture) -> str:
    return f"{_slug(f'{part.title} {picture.title}')}.png"


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _about(comparison: Comparison) -> Table:
    """What the methods are, and where."""
    header = ["method", "objective", "mask", "loss; M hidden", "arXiv", "seeds", "time"]
    lines = [
        Line(
            [
                Cell(row.method, row.link),
                Cell(row.objective),
                Cell(row.mask),
                Cell(row.formula),
                Cell(", ".join(row.papers), f"{ARXIV}{row.papers[-1]}" if row.papers else ""),
                Cell(", ".join(map(str, row.seeds))),
                Cell(time_text(row, comparison.rows)),
            ]
        )
        for row in comparison.rows
    ]
    return Table("Methods", [Heading(text) for text in header], lines)


def comparison_chart(comparison: Comparison) -> Image.Image:
    """A chart for every column of the table of everything."""
    rows = comparison.rows
    charts = [
        Bars(
            heading,
            {row.method: row.metrics[key] for row in rows if key in row.metrics},
            chance=comparison.chance.get(key),
            intervals={row.method: row.intervals[key] for row in rows if key in row.intervals},
        )
        for key, heading in headings(rows).items()
    ]
    times = {row.method: time for row in rows if (time := relative_time(row, rows)) is not None}
    if times or not charts:
        charts.append(Bars("training time", times, "{:.2f}x"))
    return bar_charts(charts, comparison.methods, title=f"{comparison.name}: methods side by side")


def pareto_chart(comparison: Comparison) -> Image.Image | None:
    """Every number over the relative time; None where no two methods were timed."""
    rows, charts = comparison.rows, {}
    times = {row.method: time for row in rows if (time := relative_time(row, rows))}
    for key, heading in headings(rows).items():
        points = {
            row.method: Reached(times[row.method], row.metrics[key], *row.intervals[key])
            for row in rows
            if row.method in times and key in row.intervals
        }
        if len(points) > 1:
            charts[heading] = points
    return pareto_charts(charts, comparison.methods, cost="relative training time") if charts else None


def _confusions(comparison: Comparison) -> list[Picture]:
    return [
        Picture(key, confusion_matrices(found, comparison.classes.get(key.partition("/")[0], ())))
        for key, found in comparison.confusions.items()
    ]


def _looked_at(measured: Sequence[Measured]) -> list[Section]:
    """The pictures of every method, those of one kind together."""
    firsts: dict[str, Measured] = {}
    for one in measured:
        firsts.setdefault(one.method, one)
    kinds: dict[str, dict[str, Path]] = {}
    for method, one in firsts.items():
        for kind, file in one.pictures.items():
            kinds.setdefault(kind, {})[method] = file
    return [_pictures_of(kind, files) for kind, files in kinds.items()]


def _pictures_of(kind: str, files: Mapping[str, Path]) -> Section:
    pictures = []
    for method, file in files.items():
        with Image.open(file) as image:
            pictures.append(Picture(method, image.convert("RGB")))
    words = kind.replace("_", " ")
    return Section(words[0].upper() + words[1:], pictures=pictures)
