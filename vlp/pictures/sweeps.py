"""Pictures of a search: a metric against every setting that was searched, alone, in pairs and all at once."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw

CHARTS_PER_ROW = 3
COLORS = "viridis"
CHART_POINTS = 150
"""Of which a heat map is high and wide, in 1/72 of an inch."""
MAX_CELLS = 12
"""Numbers of an axis that a heat map gives a row each."""


class Point(NamedTuple):
    """A setting that was tried."""

    values: Mapping[str, Any]
    """By axis; numbers, or anything else that is a choice. An axis may be missing."""
    score: float
    spread: float | None
    """Standard deviation over seeds; None where there is one."""


class Scale(NamedTuple):
    """Where the values of an axis lie on paper."""

    places: list[float]
    """Of each point."""
    ticks: list[str] | None
    """Names of 0, 1, ... where the values are choices."""
    is_log: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Scale":
        """Numbers by their size, on a logarithmic scale where they span more than a factor of 20.

        Others are in the order in which they come.
        """
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            places = [float(value) for value in values]
            return cls(places, None, min(places) > 0 and max(places) > 20 * min(places))
        return cls.of_choices(values, list(dict.fromkeys(values_as_text(values))))

    @classmethod
    def of_choices(cls, values: Sequence[Any], names: list[str]) -> "Scale":
        """Evenly spaced, in the order of the names."""
        return cls([float(names.index(text)) for text in values_as_text(values)], names, False)

    @classmethod
    def of_cells(cls, values: Sequence[Any]) -> "Scale":
        """As `of`, but few numbers are evenly spaced: the rows of a heat map."""
        scale = cls.of(values)
        if scale.ticks is None and len(set(values)) <= MAX_CELLS:
            return cls.of_choices(values, values_as_text(sorted(set(values))))
        return scale

    def shares(self) -> list[float]:
        """Places between the least, 0, and the greatest, 1."""
        places = np.log(self.places) if self.is_log else np.array(self.places)
        width = places.max() - places.min()
        return list((places - places.min()) / width if width else np.full_like(places, 0.5))


def values_as_text(values: Sequence[Any]) -> list[str]:
    """Numbers rounded, for the marks of an axis."""
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]


def axes_of(points: Sequence[Point]) -> list[str]:
    """Every axis that a setting has."""
    return list(dict.fromkeys(axis for point in points for axis in point.values))


def pairs_of(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Every two axes that a setting has both of."""
    pairs = combinations(axes_of(points), 2)
    return [pair for pair in pairs if any(set(pair) <= set(point.values) for point in points)]


def axis_charts(points: Sequence[Point], *, metric: str) -> Image.Image:
    """The metric against each axis, with the spread of the seeds."""
    axes = axes_of(points)
    columns = min(CHARTS_PER_ROW, len(axes))
    lines = ceil(len(axes) / columns)
    figure = Figure(figsize=(0.6 + 3.4 * columns, 3.0 * lines), dpi=150, layout="constrained")
    charts = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for chart, axis in zip(charts, axes, strict=False):
        shown = [point for point in points if axis in point.values]
        scale = Scale.of([point.values[axis] for point in shown])
        _lay(chart, "x", axis, scale)
        chart.errorbar(
            _side_by_side(scale),
            [point.score for point in shown],
            yerr=[point.spread or 0.0 for point in shown],
            fmt="o",
            capsize=3,
            elinewidth=1,
            color=colormaps[COLORS](0.3),
        )
        _plain(chart)
    for chart in charts[len(axes) :]:
        chart.set_axis_off()
    for chart in charts[::columns]:
        chart.set_ylabel(metric, fontsize=8)
    return draw(figure)


def pair_charts(points: Sequence[Point], *, metric: str) -> Image.Image:
    """A heat map for each pair of axes: every setting in the colour of its score.

    Where several lie on one place, it is their mean.

    Raises:
        ValueError: no setting has two axes.
    """
    pairs = pairs_of(points)
    if not pairs:
        raise ValueError("a pair of axes takes two")
    columns = min(CHARTS_PER_ROW, len(pairs))
    lines = ceil(len(pairs) / columns)
    figure = Figure(figsize=(1.0 + 3.6 * columns, 3.2 * lines), dpi=150, layout="constrained")
    charts = figure.subplots(lines, columns, squeeze=False).flatten()
    colors = _colors(points)
    for chart, (x, y) in zip(charts, pairs, strict=False):
        shown = [point for point in points if {x, y} <= set(point.values)]
        across, along = (Scale.of_cells([point.values[axis] for point in shown]) for axis in (x, y))
        _lay(chart, "x", x, across)
        _lay(chart, "y", y, along)
        places = list(zip(across.places, along.places, strict=True))
        cells = {
            place: [p.score for p, q in zip(shown, places, strict=True) if q == place] for place in places
        }
        means = [float(np.mean(scores)) for scores in cells.values()]
        rows = max(len({place[0] for place in cells}), len({place[1] for place in cells}))
        size = (CHART_POINTS / (rows + 1)) ** 2  # of an area
        chart.scatter(*zip(*cells, strict=True), c=means, s=size, marker="s", cmap=COLORS, norm=colors)
        for place, mean in zip(cells, means, strict=True):
            ink = "black" if colors(mean) > 0.6 else "white"
            chart.annotate(f"{mean:.3g}", place, ha="center", va="center", fontsize=7, color=ink)
        chart.margins(0.6 / rows)
        _plain(chart)
    for chart in charts[len(pairs) :]:
        chart.set_axis_off()
    _color_bar(figure, charts, colors, metric)
    return draw(figure)


def parallel_coordinates(points: Sequence[Point], *, metric: str) -> Image.Image:
    """A line through all axes for each setting, in the colour of the metric, which is the last axis; it is
    broken at an axis that a setting has not."""
    axes = axes_of(points)
    shown = [[axis in point.values for point in points] for axis in axes]
    scales = [Scale.of([point.values[axis] for point in points if axis in point.values]) for axis in axes]
    scales.append(Scale.of([point.score for point in points])._replace(is_log=False))
    figure = Figure(figsize=(1.6 + 2.0 * len(scales), 3.6), dpi=150, layout="constrained")
    chart = figure.subplots()
    colors = _colors(points)
    shares = [scale.shares() for scale in scales]
    shown.append([True] * len(points))
    heights = [_spread(share, where) for share, where in zip(shares, shown, strict=True)]
    for number in np.argsort([point.score for point in points]):  # the greatest on top
        color = colormaps[COLORS](colors(points[number].score))
        chart.plot(
            [height[number] for height in heights], color=color, linewidth=1.6, marker="o", markersize=3
        )
    for place, (scale, share) in enumerate(zip(scales, shares, strict=True)):
        chart.axvline(place, color="#bbb", linewidth=0.8, zorder=0)
        for text, height in _marks(scale, share):
            chart.annotate(text, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=7)
    chart.set_xticks(range(len(scales)), [*axes, metric], fontsize=8)
    chart.set_yticks([])
    chart.set_xlim(-0.1, len(scales) - 0.6)
    chart.spines[:].set_visible(False)
    return draw(figure)


def schedules(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """What changes with the training: a chart per name, with a line per setting over evenly spread progress.

    Args:
        curves: name, such as `alpha` -> setting -> values from the first step to the last.
    """
    figure = Figure(figsize=(0.6 + 4.2 * len(curves), 3.4), dpi=150, layout="constrained")
    charts = figure.subplots(1, len(curves), squeeze=False).flatten()
    for chart, (name, lines) in zip(charts, curves.items(), strict=True):
        for number, (setting, values) in enumerate(lines.items()):
            progress = np.linspace(0, 1, len(values))
            chart.plot(progress, values, color=colormaps["tab10"](number % 10), label=setting, linewidth=1.6)
        chart.set_title(name, fontsize=9, loc="left")
        chart.set_xlabel("share of the training", fontsize=8)
        _plain(chart)
    handles, labels = charts[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=7)
    return draw(figure)


def _side_by_side(scale: Scale) -> list[float]:
    """Places of which those that would hide one another lie beside one another."""
    places = np.log(scale.places) if scale.is_log else np.array(scale.places)
    step = 0.03 * (np.ptp(places) or 1.0)
    seen: dict[float, int] = {}
    for number, place in enumerate(scale.places):
        seen[place] = seen.get(place, -1) + 1
        among = scale.places.count(place) - 1
        places[number] += step * (seen[place] - among / 2)
    return list(np.exp(places) if scale.is_log else places)


def _spread(shares: Sequence[float], shown: Sequence[bool]) -> list[float]:
    """Shares of those that are shown, at their places among all; the others are not a number."""
    left = iter(shares)
    return [next(left) if is_shown else np.nan for is_shown in shown]


def _lay(chart: Axes, which: Literal["x", "y"], axis: str, scale: Scale) -> None:
    """Give a chart one of its two axes."""
    chart.set(**{f"{which}label": axis})
    line = chart.xaxis if which == "x" else chart.yaxis
    line.label.set_fontsize(8)
    if scale.is_log:
        chart.set(**{f"{which}scale": "log"})
    if scale.ticks is not None:
        line.set_ticks(range(len(scale.ticks)), [tick[:24] for tick in scale.ticks])


def _marks(scale: Scale, shares: Sequence[float]) -> list[tuple[str, float]]:
    """What is written beside an axis: its choices, or its least and greatest number."""
    if scale.ticks is not None:
        at = dict(zip(scale.places, shares, strict=True))
        return [(tick[:24], at[float(number)]) for number, tick in enumerate(scale.ticks)]
    least, greatest = int(np.argmin(scale.places)), int(np.argmax(scale.places))
    return [(f"{scale.places[i]:.3g}", shares[i]) for i in {least, greatest}]


def _colors(points: Sequence[Point]) -> Normalize:
    scores = [point.score for point in points]
    return Normalize(min(scores), max(max(scores), min(scores) + 1e-9))


def _color_bar(figure: Figure, charts: Any, colors: Normalize, metric: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(colors, COLORS), ax=list(charts))
    bar.set_label(metric, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _plain(chart: Axes) -> None:
    chart.tick_params(labelsize=7)
    chart.grid(color="#eee", linewidth=0.6)
    chart.set_axisbelow(True)
    chart.spines[["top", "right"]].set_visible(False)
