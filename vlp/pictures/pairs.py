"""A batch to look at: its images, dark where hidden, with their captions."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vlp.pictures.masks import BACKGROUND, CAPTION, masked_picture

COLUMNS, GAP, FONT_SIZE, MAX_LINES = 8, 12, 12, 4
LINE = round(1.35 * FONT_SIZE)
MIN_WIDTH = 144
"""Pixels of a cell, so that captions have room."""


def pair_sheet(images: Tensor, masked: Tensor, captions: Sequence[str]) -> Image.Image:
    """Rows of pictures, each above the beginning of its caption.

    Args:
        images: (B, 3, H, W) in [0, 1].
        masked: (B, N) bool, True where hidden.
    """
    scale = max(1, -(-MIN_WIDTH // images.shape[-1]))
    pictures = [masked_picture(*pair, scale=scale) for pair in zip(images, masked, strict=True)]
    width, height = pictures[0].size
    rows = -(-len(pictures) // COLUMNS)
    cell_width, cell_height = width + GAP, height + MAX_LINES * LINE + GAP
    size = (min(COLUMNS, len(pictures)) * cell_width + GAP, rows * cell_height + GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_SIZE)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(i, COLUMNS)
        left, top = GAP + column * cell_width, GAP + row * cell_height
        sheet.paste(picture, (left, top))
        text = wrap(caption, width=round(width / (0.56 * FONT_SIZE)), max_lines=MAX_LINES, placeholder=" ...")
        for line, words in enumerate(text):
            draw.text((left, top + height + 2 + line * LINE), words, CAPTION, font, anchor="lt")
    return sheet
