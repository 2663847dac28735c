"""Charts of metrics, drawn on figures of their own so that no global state is shared."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw
from vlp.pictures.masks import COLORS

CHARTS_PER_ROW = 4


class Bars(NamedTuple):
    """One chart: a bar for every method that has a value."""

    heading: str
    values: Mapping[str, float]
    """By method."""
    number_format: str = "{:.1%}"
    """How each bar states its value, as the table beside it does."""
    chance: float | None = None
    """Where a line marks what guessing gives."""
    intervals: Mapping[str, tuple[float, float]] = {}
    """By method, where its value may lie: a whisker on its bar."""


def bar_charts(charts: Sequence[Bars], methods: Sequence[str], *, title: str) -> Image.Image:
    """Charts side by side, each on its own scale from 0, with the methods in one order."""
    if not charts:
        raise ValueError("no metrics to draw")
    columns = min(CHARTS_PER_ROW, len(charts))
    lines = ceil(len(charts) / columns)
    size = (1.6 + 2.6 * columns, 0.5 + lines * (0.7 + 0.32 * len(methods)))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for axis, bars in zip(axes, charts, strict=False):
        _draw_bars(axis, bars, methods)
    axes[0].set_yticks(range(len(methods)), list(methods))
    axes[0].invert_yaxis()  # shared: the first method on top everywhere
    for axis in axes[len(charts) :]:
        axis.set_axis_off()
    return draw(figure)


def _draw_bars(axis: Axes, bars: Bars, methods: Sequence[str]) -> None:
    for i, method in enumerate(methods):
        if method in bars.values:
            axis.barh(i, bars.values[method], height=0.72, color=COLORS[i % len(COLORS)])
            low, high = bars.intervals.get(method, (0.0, 0.0))
            if high > low:
                axis.plot([low, high], [i, i], color="#444", linewidth=1, marker="|", markersize=5)
            label = bars.number_format.format(bars.values[method])
            place = (max(high, bars.values[method]), i)
            axis.annotate(
                label, place, (4, 0), textcoords="offset points", va="center", fontsize=8, color="#444"
            )
    if bars.chance is not None:
        axis.axvline(bars.chance, color="#444", linewidth=1, linestyle=":")
        axis.set_xlabel(
            f"chance {bars.number_format.format(bars.chance)}", fontsize=8, color="#444", loc="left"
        )
    axis.set_title(bars.heading, fontsize=9, loc="left")
    ends = [high for _, high in bars.intervals.values()]
    axis.set_xlim(0, 1.3 * max([*bars.values.values(), *ends, bars.chance or 0.0]) or 1.0)
    axis.xaxis.set_major_formatter(lambda value, _: bars.number_format.format(value))
    axis.locator_params(axis="x", nbins=3)
    axis.tick_params(length=0, labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#ccc")
