"""Contact sheet of masks: what is left of each image under every method."""

from collections.abc import Iterator, Mapping
from math import isqrt
from textwrap import wrap
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vlp.masking.strategy import Choice

HIDDEN = (52, 55, 62)
ANCHOR = (232, 50, 45)
COLORS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
    *("#aec7e8", "#ffbb78", "#98df8a", "#c5b0d5", "#c49c94", "#f7b6d2"),
)
"""Of clusters, one after the other; none is near the red of the anchors."""
BACKGROUND = (255, 255, 255)
TITLE = (24, 26, 30)
CAPTION = (104, 110, 120)


class PatchGrid(NamedTuple):
    """Where the square patches of an image lie, row by row from the top left."""

    patch_size: int
    """Pixels."""
    columns: int

    def box(self, index: int) -> tuple[int, int, int, int]:
        """First and last pixel of a patch: left, top, right, bottom, all inclusive."""
        row, column = divmod(index, self.columns)
        left, top = column * self.patch_size, row * self.patch_size
        return left, top, left + self.patch_size - 1, top + self.patch_size - 1


class Layout(NamedTuple):
    """Sizes of the sheet, in pixels."""

    cell_width: int
    cell_height: int
    gap: int
    font_size: int
    title_lines: int

    @property
    def line(self) -> int:
        """Height of a line of text."""
        return round(1.35 * self.font_size)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """Top left corner of a picture; its caption lies in the gap below."""
        top = self.gap + self.title_lines * self.line + self.gap // 2
        below = self.line + self.gap
        return self.gap + column * (self.cell_width + self.gap), top + row * (self.cell_height + below)


def patch_grid(height: int, width: int, num_patches: int) -> PatchGrid:
    """The grid of square patches that tiles an image; raises `ValueError` if there is none."""
    size = isqrt(height * width // num_patches)
    if size == 0 or height % size or width % size or (height // size) * (width // size) != num_patches:
        raise ValueError(f"{num_patches} square patches do not tile an image of {height} x {width} pixels")
    return PatchGrid(size, width // size)


def to_picture(image: Tensor, *, scale: int = 1) -> Image.Image:
    """Picture of (3, H, W) in [0, 1], each pixel repeated `scale` times along both sides."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def masked_picture(
    image: Tensor, masked: Tensor, *, scale: int = 1, anchors: Tensor | None = None
) -> Image.Image:
    """Picture of one image with its hidden patches dark and its anchors outlined in red.

    Args:
        image: (3, H, W) in [0, 1].
        masked: (N,) bool, True where hidden.
        scale: pixels drawn per pixel of the image.
        anchors: (A,) int64 in 0..N-1.
    """
    picture = to_picture(image, scale=scale)
    grid = patch_grid(picture.height, picture.width, len(masked))
    draw = ImageDraw.Draw(picture)
    for index in masked.nonzero().flatten().tolist():
        draw.rectangle(grid.box(index), fill=HIDDEN)
    _outline(picture, grid, anchors)
    return picture


def mask_panel(
    images: Tensor,
    masked_by_method: Mapping[str, Tensor],
    *,
    image_scale: int = 1,
    anchors: Mapping[str, Tensor] | None = None,
) -> Image.Image:
    """Contact sheet: the images in the first column, then a column per method with the share it hides.

    Args:
        images: (B, 3, H, W) in [0, 1].
        masked_by_method: title to (B, N) bool, True where hidden.
        image_scale: pixels drawn per pixel of an image.
        anchors: title to (B, A) int64, the patches a method outlines.
    """
    anchors = anchors or {}
    columns = [("image", [(to_picture(image, scale=image_scale), "") for image in images])]
    for title, masked in masked_by_method.items():
        drawn = []
        for i, (image, hidden) in enumerate(zip(images, masked, strict=True)):
            outlined = anchors[title][i] if title in anchors else None
            picture = masked_picture(image, hidden, scale=image_scale, anchors=outlined)
            drawn.append((picture, f"{hidden.float().mean().item():.0%} hidden"))
        columns.append((title, drawn))
    return sheet(columns)


def choice_panel(images: Tensor, choice: Choice, visible: Tensor, *, image_scale: int = 1) -> Image.Image:
    """Contact sheet of how a mask came about: image, anchors, clusters, and what the encoder sees.

    Anchors are outlined, and clusters coloured, as in figure 3 of arXiv:2405.08815.

    Args:
        images: (B, 3, H, W) in [0, 1].
        visible: (B, N) bool, what is left for the encoder after the cut to its slots.
        image_scale: pixels drawn per pixel of an image.
    """
    columns = [("image", [(to_picture(image, scale=image_scale), "") for image in images])]
    if choice.anchors is not None:
        nothing = torch.zeros_like(choice.masked[0])
        pairs = zip(images, choice.anchors, strict=True)
        outlined = [masked_picture(x, nothing, scale=image_scale, anchors=anchors) for x, anchors in pairs]
        count = choice.anchors.shape[1]
        columns.append(("anchors", [(picture, f"{count} anchors") for picture in outlined]))
    if choice.clusters is not None:
        rows = zip(images, choice.clusters, choice.masked.float().mean(dim=1).tolist(), strict=True)
        drawn = [
            (cluster_picture(x, own, scale=image_scale), f"{share:.0%} hidden") for x, own, share in rows
        ]
        columns.append(("clusters", drawn))
    seen = [
        (masked_picture(image, ~left, scale=image_scale), f"{left.float().mean().item():.0%} seen")
        for image, left in zip(images, visible, strict=True)
    ]
    return sheet([*columns, ("encoder sees", seen)])


def cluster_picture(
    image: Tensor, clusters: Tensor, *, scale: int = 1, anchors: Tensor | None = None
) -> Image.Image:
    """Picture of one image, every cluster outlined in a colour of its own that its patches shine through.

    Args:
        image: (3, H, W) in [0, 1].
        clusters: (N,) int64, -1 for a patch of none.
        scale: pixels drawn per pixel of the image.
        anchors: (A,) int64 in 0..N-1, outlined in red.
    """
    picture = to_picture(image, scale=scale)
    grid = patch_grid(picture.height, picture.width, len(clusters))
    paint = picture.copy()
    draw = ImageDraw.Draw(paint)
    painted = [(i, cluster) for i, cluster in enumerate(clusters.tolist()) if cluster >= 0]
    for index, cluster in painted:
        draw.rectangle(grid.box(index), fill=COLORS[cluster % len(COLORS)])
    picture = Image.blend(picture, paint, 0.55)
    draw = ImageDraw.Draw(picture)
    for index, cluster in painted:
        for edge in _borders(grid, index, clusters):
            draw.rectangle(edge, fill=COLORS[cluster % len(COLORS)])
    _outline(picture, grid, anchors)
    return picture


def _borders(grid: PatchGrid, index: int, clusters: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Strips along the sides on which a patch's cluster ends."""
    left, top, right, bottom = grid.box(index)
    width = max(1, grid.patch_size // 8) - 1
    column = index % grid.columns
    sides = (
        (index - 1 if column else -1, (left, top, left + width, bottom)),
        (index + 1 if column < grid.columns - 1 else -1, (right - width, top, right, bottom)),
        (index - grid.columns, (left, top, right, top + width)),
        (index + grid.columns, (left, bottom - width, right, bottom)),
    )
    for neighbour, strip in sides:
        if not 0 <= neighbour < len(clusters) or clusters[neighbour] != clusters[index]:
            yield strip


def _outline(picture: Image.Image, grid: PatchGrid, anchors: Tensor | None) -> None:
    draw = ImageDraw.Draw(picture)
    for index in [] if anchors is None else anchors.tolist():
        draw.rectangle(grid.box(index), outline=ANCHOR, width=max(1, grid.patch_size // 8))


def sheet(columns: list[tuple[str, list[tuple[Image.Image, str]]]]) -> Image.Image:
    """Columns of captioned pictures of one size under their titles."""
    width, height = columns[0][1][0][0].size
    font_size = min(24, max(14, width // 9))
    titles = [wrap(title, width=max(1, int(width / (0.56 * font_size)))) for title, _ in columns]
    layout = Layout(width, height, max(8, width // 14), font_size, max(map(len, titles)))
    right, bottom = layout.origin(len(columns[0][1]), len(columns))
    sheet = Image.new("RGB", (right, bottom - layout.gap // 2), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title_font = ImageFont.load_default(size=font_size)
    caption_font = ImageFont.load_default(size=round(0.85 * font_size))
    for column, (lines, (_, drawn)) in enumerate(zip(titles, columns, strict=True)):
        left, top = layout.origin(0, column)
        for i, text in enumerate(reversed(lines)):
            draw.text((left, top - layout.gap // 2 - i * layout.line), text, TITLE, title_font, anchor="ls")
        for row, (picture, caption) in enumerate(drawn):
            left, top = layout.origin(row, column)
            sheet.paste(picture, (left, top))
            draw.text((left, top + height + font_size // 4), caption, CAPTION, caption_font, anchor="lt")
    return sheet
