"""What a model found: items that went best and worst, with what came first in their places."""

from io import BytesIO
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlp.evaluation.examples import Example, Examples
from vlp.pictures.masks import BACKGROUND, CAPTION

SIDE, GAP, FONT_SIZE = 144, 12, 12
LINE = round(1.35 * FONT_SIZE)
TITLES = ("asked", "belongs to it", "came first")
ROW = SIDE + LINE + GAP
WIDTH = len(TITLES) * (SIDE + GAP)


def example_sheet(examples: Examples) -> Image.Image:
    """The best on the left, the worst on the right: what was asked, what belongs to it, what came first."""
    rows = max(map(len, examples))
    whole = Image.new("RGB", (2 * WIDTH + 3 * GAP, 2 * (LINE + GAP) + rows * ROW), BACKGROUND)
    for place, (title, kind) in enumerate(zip(("best", "worst"), examples, strict=True)):
        left = GAP + place * (WIDTH + GAP)
        _write(whole, title, (left, GAP), size=FONT_SIZE + 3)
        for column, heading in enumerate(TITLES):
            _write(whole, heading, (left + column * (SIDE + GAP), 2 * GAP + LINE))
        for row, example in enumerate(kind):
            whole.paste(_drawn(example), (left, 2 * (LINE + GAP) + row * ROW))
    return whole


def _drawn(example: Example) -> Image.Image:
    """An item in a row."""
    row = Image.new("RGB", (WIDTH, ROW), BACKGROUND)
    said = ("", f"in place {example.rank:,}", "" if example.rank > 1 else "right")
    for column, (content, note) in enumerate(zip(example[:3], said, strict=True)):
        left = column * (SIDE + GAP)
        row.paste(_cell(content), (left, 0))
        _write(row, note, (left, SIDE + 3))
    return row


def _cell(content: bytes | str) -> Image.Image:
    """An image, cut to a square, or as much of a text as there is room for."""
    if isinstance(content, bytes):
        with Image.open(BytesIO(content)) as image:
            return ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
    cell = Image.new("RGB", (SIDE, SIDE), "#f3f4f6")
    lines = wrap(
        content, width=round(SIDE / (0.56 * FONT_SIZE)), max_lines=SIDE // LINE - 1, placeholder=" ..."
    )
    _write(cell, "\n".join(lines), (6, 6))
    return cell


def _write(image: Image.Image, text: str, place: tuple[int, int], *, size: int = FONT_SIZE) -> None:
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(image).multiline_text(place, text, CAPTION, font, spacing=LINE - FONT_SIZE)
