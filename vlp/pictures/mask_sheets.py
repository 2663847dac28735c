"""Masks side by side on the same images, each seen by a network of its own size."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vlp.pictures.figure import draw
from vlp.pictures.mask_grid import Look, MaskGrid
from vlp.pictures.masks import COLORS, cluster_picture, masked_picture, sheet, to_picture

LEAST_CELL = 144
"""Pixels of a picture's side."""


class Column(NamedTuple):
    """One mask on the images."""

    title: str
    images: Tensor
    """(B, 3, H, W) in [0, 1], of the size that its network takes."""
    look: Look


def hidden_sheet(columns: Sequence[Column]) -> Image.Image:
    """The images, and a column per mask: what its encoder sees, and the share that is hidden from it."""
    cell = _cell(columns)
    shown = [(_title(column.title), _hidden(column.images, column.look, cell)) for column in columns]
    return sheet([_originals(columns, cell), *shown])


def cluster_sheet(columns: Sequence[Column]) -> Image.Image | None:
    """How masks with clusters came about; None where no mask has any.

    Of each such mask: its clusters, outlined, with their anchors in red, and what is left of the image.
    """
    cell = _cell(columns)
    shown = []
    for title, images, look in columns:
        if look.choice.clusters is None:
            continue
        anchors = look.choice.anchors
        pictures = [
            cluster_picture(image, clusters, anchors=None if anchors is None else anchors[i])
            for i, (image, clusters) in enumerate(zip(images, look.choice.clusters, strict=True))
        ]
        counts = [len(own[own >= 0].unique()) for own in look.choice.clusters]
        captions = [f"{count} clusters" for count in counts]
        shown.append(
            (_title(title), [(_fit(x, cell), text) for x, text in zip(pictures, captions, strict=True)])
        )
        left = [
            (_fit(masked_picture(image, hidden), cell), f"{hidden.float().mean().item():.0%} hidden")
            for image, hidden in zip(images, look.hidden, strict=True)
        ]
        shown.append(("encoder sees", left))
    return sheet([_originals(columns, cell), *shown]) if shown else None


def distance_curves(grids: Sequence[tuple[str, MaskGrid]], *, progress: float) -> Image.Image:
    """AvgDist over the share that is hidden: a line per mask whose target can be set, a dot for its own."""
    figure = Figure(figsize=(7.6, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for number, (name, grid) in enumerate(grids):
        color, ratios = COLORS[number % len(COLORS)], grid.ratios()
        own, *others = [(ratios[place], grid.distances[place]) for place in grid.at(progress)]
        if others:
            axes.plot(*zip(*sorted(others), strict=True), color=color, linewidth=1.5)
        axes.plot(*own, "o", color=color, markersize=5, label=name)
    axes.set(xlabel="share of the patches that is hidden", ylabel="AvgDist, pixels", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.grid(color="#eee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return draw(figure)


def _hidden(images: Tensor, look: Look, cell: int) -> list[tuple[Image.Image, str]]:
    """What is left of each image, and the share that is not."""
    return [
        (_fit(masked_picture(image, hidden), cell), f"{hidden.float().mean().item():.0%} hidden")
        for image, hidden in zip(images, look.hidden, strict=True)
    ]


def _title(name: str) -> str:
    """In words, so that a long one has several lines."""
    return name.replace("_", " ")


def _cell(columns: Sequence[Column]) -> int:
    """Side of the pictures: that of the largest image."""
    largest = max(column.images.shape[-1] for column in columns)
    return largest * max(1, -(-LEAST_CELL // largest))


def _originals(columns: Sequence[Column], cell: int) -> tuple[str, list[tuple[Image.Image, str]]]:
    largest = max((column.images for column in columns), key=lambda images: images.shape[-1])
    return "image", [(_fit(to_picture(image), cell), "") for image in largest]


def _fit(picture: Image.Image, cell: int) -> Image.Image:
    return picture if picture.width == cell else picture.resize((cell, cell), Image.Resampling.NEAREST)
