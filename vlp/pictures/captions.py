"""What is read of captions: each word as dark as it is often kept."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw

LINE, TOP = 0.32, 0.15
"""Inches between lines, and above the first."""


def kept_words(kept: Mapping[str, Sequence[tuple[str, float]]]) -> Image.Image:
    """One line per mask: (word, how often it is kept, in [0, 1]) of one caption, or of several in a row."""
    figure = Figure(figsize=(7.2, LINE * len(kept) + 2 * TOP), dpi=110)
    height = figure.get_figheight()
    for row, (name, words) in enumerate(kept.items()):
        y = 1 - (TOP + LINE * (row + 0.5)) / height
        figure.text(0.01, y, name, va="center", fontsize=9, color="#777")
        x = 0.15
        for word, share in words:
            shade = 0.88 * (1 - share)
            text = figure.text(
                x, y, word, va="center", fontsize=10, color=(shade, shade, shade), family="monospace"
            )
            x += text.get_window_extent().width / figure.bbox.width + 0.008
    return draw(figure)
