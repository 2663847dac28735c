"""Charts of metrics, drawn on figures of their own so that no global state is shared."""

from collections.abc import Mapping
from math import ceil

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw

CHARTS_PER_ROW = 4


def metric_bars(rows: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """Bar chart of methods x metrics: a chart per metric, each on its own scale, a bar per method.

    Args:
        rows: method to its metrics by name; a metric that a method lacks leaves its bar out.
    """
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    if not metrics:
        raise ValueError("no metrics to draw")
    columns = min(CHARTS_PER_ROW, len(metrics))
    lines = ceil(len(metrics) / columns)
    figure = Figure(
        figsize=(1.6 + 2.6 * columns, lines * (0.5 + 0.32 * len(rows))), dpi=150, layout="constrained"
    )
    charts = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for chart, metric in zip(charts, metrics, strict=False):
        _draw_bars(chart, metric, [row.get(metric) for row in rows.values()])
    charts[0].set_yticks(range(len(rows)), list(rows))
    charts[0].invert_yaxis()  # shared: the first method on top everywhere
    for chart in charts[len(metrics) :]:
        chart.set_axis_off()
    return draw(figure)


def _draw_bars(chart: Axes, metric: str, values: list[float | None]) -> None:
    colors = colormaps["tab10"]
    for i, value in enumerate(values):
        if value is not None:
            bar = chart.barh(i, value, height=0.72, color=colors(i % 10))
            chart.bar_label(bar, fmt="%.3g", padding=3, fontsize=8, color="#444")
    chart.set_title(metric, fontsize=9, loc="left")
    chart.margins(x=0.2)
    chart.set_xticks([])  # each bar states its value
    chart.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "bottom"):
        chart.spines[side].set_visible(False)
    chart.spines["left"].set_color("#ccc")
