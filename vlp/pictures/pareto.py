"""What methods reach for what they cost."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw
from vlp.pictures.masks import COLORS

PER_ROW = 4


class Reached(NamedTuple):
    """What a method costs, and what it reaches."""

    cost: float
    """Lower is better."""
    value: float
    """Higher is better."""
    low: float
    """End of the interval of the value."""
    high: float


def pareto_front(points: Mapping[str, Reached]) -> list[str]:
    """The methods that no other one beats in both cost and value, the cheapest first."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: (points[name].cost, -points[name].value)):
        if not front or points[name].value > points[front[-1]].value:
            front.append(name)
    return front


def pareto_charts(
    charts: Mapping[str, Mapping[str, Reached]], methods: Sequence[str], *, cost: str
) -> Image.Image:
    """A panel per number: a dot with its interval for each method, a line through those not beaten.

    Args:
        charts: by the heading of a number, what every method reaches of it.
        methods: in the order of their colors.
        cost: what the cost is.
    """
    columns, rows = min(PER_ROW, len(charts)), ceil(len(charts) / PER_ROW)
    figure = Figure(figsize=(0.4 + 3.0 * columns, 0.3 + 2.6 * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (heading, points) in zip(axes, charts.items(), strict=False):
        _draw(axis, points, methods)
        axis.set_title(heading, fontsize=9, loc="left")
        axis.set_xlabel(cost, fontsize=8)
    for axis in axes[len(charts) :]:
        axis.set_axis_off()
    return draw(figure)


def _draw(axis: Axes, points: Mapping[str, Reached], methods: Sequence[str]) -> None:
    front = [points[name] for name in pareto_front(points)]
    axis.plot(
        [one.cost for one in front], [one.value for one in front], color="#9aa3b2", linewidth=1, zorder=1
    )
    for name, one in points.items():
        color = COLORS[methods.index(name) % len(COLORS)]
        axis.plot([one.cost] * 2, [one.low, one.high], color=color, linewidth=1)
        axis.plot(one.cost, one.value, "o", color=color, markersize=5)
        axis.annotate(
            name, (one.cost, one.value), (5, 3), textcoords="offset points", fontsize=7, color=color
        )
    axis.margins(x=0.25, y=0.12)
    axis.yaxis.set_major_formatter("{x:.1%}")
    axis.tick_params(labelsize=7)
    axis.grid(color="#eee")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
