"""Scenes to pixels."""

import colorsys
import math
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vlp.tiny_world.scene import COLORS, Group, Scene

SUPERSAMPLING = 4
SMALL_RADIUS = 0.11
"""Of the image's side. The tightest cell leaves a large object a radius of 0.15."""
MAX_RADIUS = 0.3
TEXTURE_PERIOD = 0.1
"""Of the image's side."""
MIN_CONTRAST = 115.0
"""Least distance in RGB between the background and an object, of 442."""


class Rendered(NamedTuple):
    """A scene in pixels, of as many a side as was asked for."""

    picture: Image.Image
    """RGB."""
    objects: Image.Image
    """8-bit grey, white where an object is."""


def render(scene: Scene, rng: Random, *, image_size: int) -> Rendered:
    """Picture of a scene; places, angles and background hues vary with rng."""
    width = image_size * SUPERSAMPLING
    canvas = _background(scene, rng, image_size).resize((width, width), Image.Resampling.NEAREST)
    objects = Image.new("L", canvas.size)
    for index, group in enumerate(scene.groups):
        for x, y, radius in _places(scene, index, rng):
            angle = math.radians(rng.uniform(-12, 12))
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            outline = (_outlines()[group.shape] @ turn * radius + (x, y)) * width
            objects.paste(255, mask=_paint(canvas, outline, group))
    return Rendered(canvas.reduce(SUPERSAMPLING), objects.reduce(SUPERSAMPLING))


def _places(scene: Scene, index: int, rng: Random) -> Iterator[tuple[float, float, float]]:
    """Centre x, y and radius of each object of one group, as shares of the image's side."""
    group, num_groups = scene.groups[index], len(scene.groups)
    along = math.ceil(math.sqrt(group.count)) if num_groups == 1 else 1
    across = math.ceil(group.count / along)
    step = np.array([1 / num_groups / along, 1 / across])
    largest = min(0.46 * step.min(), MAX_RADIUS)
    radius = SMALL_RADIUS if group.size == "small" else largest
    # Little play across the axis, so that what is left of another object is not also above it.
    play = np.minimum(0.46 * step - radius, 0.15 if num_groups == 1 else 0.04)
    for place in range(group.count):
        corner = (index / num_groups, 0.0) + step * (place % along, place // along)
        centre = corner + step / 2 + play * (rng.uniform(-1, 1), rng.uniform(-1, 1))
        x, y = centre if scene.axis == "horizontal" else centre[::-1]
        yield float(x), float(y), float(radius)


def _paint(canvas: Image.Image, outline: np.ndarray, group: Group) -> Image.Image:
    """Paint an object; where it is, in white."""
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon(list(outline.ravel()), fill=255)
    canvas.paste(COLORS[group.color], mask=mask)
    if group.texture != "plain":
        canvas.paste(
            _shade(group.color), mask=ImageChops.multiply(mask, _pattern(group.texture, canvas.width))
        )
    return mask


def _shade(color: str) -> tuple[int, ...]:
    """The second color of a texture: a dark color lightened, a light one darkened."""
    rgb = np.array(COLORS[color])
    target, share = (0, 0.36) if rgb @ (0.299, 0.587, 0.114) > 130 else (255, 0.5)
    return tuple((rgb + share * (target - rgb)).astype(int).tolist())


@lru_cache
def _pattern(texture: str, width: int) -> Image.Image:
    y, x = np.mgrid[:width, :width] / (width * TEXTURE_PERIOD)
    if texture == "striped":
        is_marked = (x + y) * math.sqrt(0.5) % 1 < 0.4
    else:
        is_marked = np.hypot((x + y) % 1 - 0.5, (x - y) % 1 - 0.5) < 0.31
    return Image.fromarray(is_marked.astype(np.uint8) * 255)


def _background(scene: Scene, rng: Random, image_size: int) -> Image.Image:
    colors = [np.array(COLORS[group.color]) for group in scene.groups]
    first, second = _backdrop(rng)
    while min(np.linalg.norm(color - tone) for color in colors for tone in (first, second)) < MIN_CONTRAST:
        first, second = _backdrop(rng)
    blend = _blend(scene.background, rng, image_size)[..., None]
    return Image.fromarray((first + blend * (second - first)).round().astype(np.uint8))


def _backdrop(rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Two muted neighbouring tones, RGB in 0 to 255."""
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.4), rng.uniform(0.4, 0.95)
    first = colorsys.hsv_to_rgb(hue, saturation, value)
    second = colorsys.hsv_to_rgb(hue + rng.uniform(-0.12, 0.12), saturation, value * 0.78)
    return np.array(first) * 255, np.array(second) * 255


def _blend(background: str, rng: Random, image_size: int) -> np.ndarray:
    """Share of the second tone in each pixel: (image_size, image_size) in [0, 1]."""
    y, x = np.mgrid[:image_size, :image_size] / image_size
    if background == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        return np.clip(0.5 + 0.7 * ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)), 0, 1)
    if background == "checks":
        return (np.floor(x * 8) + np.floor(y * 8)) % 2
    if background == "noise":
        grain = np.random.default_rng(rng.getrandbits(32)).random((16, 16), dtype=np.float32)
        smooth = Image.fromarray(grain).resize((image_size, image_size), Image.Resampling.BILINEAR)
        return np.asarray(smooth)
    return np.zeros_like(x)


@lru_cache
def _outlines() -> dict[str, np.ndarray]:
    """Each shape as one polygon within the unit circle: (points, 2) x and y, y downwards."""
    turn = np.linspace(0, 2 * math.pi, 61)
    circle = np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    corner, arm = 0.85, 0.3
    corners = [(-corner, -corner), (corner, -corner), (corner, corner), (-corner, corner)]
    cross = [(arm, -arm), (arm, -1), (-arm, -1), (-arm, -arm)]
    quarter = np.array([[0, -1], [1, 0]])
    heart = np.stack(
        [
            np.sin(turn) ** 3,
            -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16,
        ],
        axis=1,
    )
    horns = np.linspace(-0.7, math.pi + 0.7, 41)
    outer_arc = np.stack([np.sin(horns), -np.cos(horns)], axis=1)
    inner_arc = outer_arc[0] + (circle[30::-1] - (0, -1)) * (0.85, 0.765)
    return {
        "circle": circle * 0.95,
        "square": np.array(corners),
        "triangle": np.array([(0, -0.95), (0.98, 0.8), (-0.98, 0.8)]),
        "star": circle[:-1:6] * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None],
        "cross": np.concatenate([np.array(cross) @ np.linalg.matrix_power(quarter, k) for k in range(4)]),
        "ring": np.concatenate([circle, circle[::-1] * 0.55]),
        "heart": heart,
        "diamond": np.array([(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]),
        "crescent": np.concatenate([outer_arc, inner_arc]) - (0.15, 0),
        "flower": circle * (0.76 + 0.24 * np.cos(6 * turn))[:, None],
    }
