"""What of a mask changes with the training, and how far it is."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from vlp.masking import MaskStrategy
from vlp.pictures.masks import ANCHOR, BACKGROUND, TITLE, sheet

POINTS = 200
WIDTH, HEIGHT = 640, 180
LINE, GRID = (72, 120, 168), (225, 227, 230)
FONT_SIZE = 18


def schedules(mask: MaskStrategy, progress: float) -> Image.Image | None:
    """One line per number of the mask over the whole training, marked at a progress; None where it has none.

    Drawn without matplotlib, whose axes take longer than many a step that they are drawn after.

    Args:
        progress: share of the training that is done, in [0, 1].
    """
    states = [mask.state(i / POINTS) for i in range(POINTS)]
    if not states[0]:
        return None
    now = min(round(progress * POINTS), POINTS - 1)
    lines = [(name, [state[name] for state in states]) for name in states[0]]
    rows = [(_line(values, now), f"{name}: {values[now]:.4g} at {progress:.0%}") for name, values in lines]
    return sheet([("over the training", rows)])


def _line(values: Sequence[float], now: int) -> Image.Image:
    """Values from the begin of the training to its end, between their least and most."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_SIZE)
    least, most = min(values), max(values)
    middle, half = (least + most) / 2, (most - least) / 2 or 1.0
    left, across = 80, (WIDTH - 81) / (len(values) - 1)

    def height(value: float) -> float:
        return HEIGHT / 2 - (value - middle) / half * (HEIGHT / 2 - FONT_SIZE)

    for value in {least, most}:
        draw.line((left, height(value), WIDTH, height(value)), GRID)
        draw.text((left - 8, height(value)), f"{value:.3g}", TITLE, font, anchor="rm")
    draw.line([(left + i * across, height(value)) for i, value in enumerate(values)], LINE, width=3)
    draw.line((left + now * across, 0, left + now * across, HEIGHT), ANCHOR, width=2)
    return picture
