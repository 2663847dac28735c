"""Confusion matrices of several methods side by side."""

from collections.abc import Mapping, Sequence
from math import ceil

from matplotlib.figure import Figure
from PIL import Image

from vlp.metrics.confusion import Confusion
from vlp.pictures.figure import draw

PER_ROW, MOST_NAMES = 3, 40


def confusion_matrices(found: Mapping[str, Confusion], names: Sequence[str]) -> Image.Image:
    """A panel per method, each row of which says what images of a class were taken for; the names of classes
    where there is room for them.

    Args:
        found: by method.
        names: of all classes.
    """
    columns, rows = min(PER_ROW, len(found)), ceil(len(found) / PER_ROW)
    largest = max(len(one.classes) for one in found.values())
    is_named = largest <= MOST_NAMES
    side = min(6.0, 2.4 + 0.13 * largest) if is_named else 4.0
    figure = Figure(figsize=(0.6 + columns * side, rows * side), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    shown = None
    for axis, (method, one) in zip(axes, found.items(), strict=False):
        shown = axis.imshow(one.shares.numpy(), cmap="viridis", vmin=0, vmax=1)
        axis.set_title(method, fontsize=9, loc="left")
        ticks = range(len(one.classes)) if is_named else ()
        labels = [names[place] for place in one.classes.tolist()] if is_named else []
        axis.set_xticks(ticks, labels, fontsize=6, rotation=90)
        axis.set_yticks(ticks, labels, fontsize=6)
        axis.set_xlabel("taken for", fontsize=7)
        axis.set_ylabel("is", fontsize=7)
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    if shown is not None:
        figure.colorbar(shown, ax=axes.tolist(), shrink=0.6, pad=0.01).ax.tick_params(labelsize=6)
    return draw(figure)
