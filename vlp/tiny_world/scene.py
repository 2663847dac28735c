"""What a picture of the tiny world shows, and the minimal changes that make its captions false."""

import zlib
from dataclasses import dataclass, replace
from random import Random

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "crescent", "flower")
COLORS = {
    "red": (222, 32, 38),
    "orange": (247, 140, 8),
    "yellow": (255, 225, 30),
    "green": (28, 150, 58),
    "cyan": (30, 205, 225),
    "blue": (30, 70, 215),
    "purple": (128, 40, 165),
    "pink": (255, 130, 190),
    "white": (255, 255, 255),
    "black": (12, 12, 16),
}
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("plain", "gradient", "noise", "checks")
AXES = ("horizontal", "vertical")
# Each color and each shape is in two classes, so that neither alone tells a class.
CLASSES = (
    ("red", "circle"),
    ("red", "star"),
    ("yellow", "star"),
    ("yellow", "square"),
    ("green", "square"),
    ("green", "heart"),
    ("blue", "heart"),
    ("blue", "ring"),
    ("white", "ring"),
    ("white", "circle"),
)
HELD_OUT_SHARE = 5
"""One content in this many is held out."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """One to four equal objects that stand together."""

    count: int
    size: str
    texture: str
    color: str
    shape: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One to three groups, no two of one shape or color, from left to right or from top to bottom."""

    groups: tuple[Group, ...]
    axis: str
    background: str

    @property
    def content(self) -> str:
        """What full captions always tell: counts, colors, shapes and their order."""
        return " ".join([self.axis, *(f"{group.count} {group.color} {group.shape}" for group in self.groups)])

    @property
    def is_held_out(self) -> bool:
        """Whether this content is kept from training; a property of the content, so splits never overlap."""
        return zlib.crc32(self.content.encode()) % HELD_OUT_SHARE == 0


def draw_scene(rng: Random) -> Scene:
    """Any scene of the world: two in five show one group, two in five two, one in five three."""
    num_groups = rng.choice((1, 1, 2, 2, 3))
    shapes, colors = rng.sample(SHAPES, num_groups), rng.sample(tuple(COLORS), num_groups)
    max_count = 4 if num_groups == 1 else 3
    groups = tuple(
        _group(rng, count=rng.randint(1, max_count), color=color, shape=shape, size=rng.choice(SIZES))
        for color, shape in zip(colors, shapes, strict=True)
    )
    axis = AXES[0] if num_groups == 1 else rng.choice(AXES)
    return Scene(groups=groups, axis=axis, background=rng.choice(BACKGROUNDS))


def draw_single(rng: Random, *, shape: str, color: str) -> Scene:
    """A scene of one large object of the given shape and color; the rest varies."""
    group = _group(rng, count=1, color=color, shape=shape, size="large")
    return Scene(groups=(group,), axis=AXES[0], background=rng.choice(BACKGROUNDS))


def alterations(scene: Scene, rng: Random) -> dict[str, Scene]:
    """Scenes that differ from this one in one respect, by the kind of difference."""
    first, *others = scene.groups
    new_shape = rng.choice([shape for shape in SHAPES if all(shape != group.shape for group in scene.groups)])
    new_color = rng.choice([color for color in COLORS if all(color != group.color for group in scene.groups)])
    groups_by_kind = {
        "replace_object": (replace(first, shape=new_shape), *others),
        "replace_attribute": (replace(first, color=new_color), *others),
    }
    altered = {kind: replace(scene, groups=groups) for kind, groups in groups_by_kind.items()}
    if not others:
        return altered
    second, *rest = others
    recolored = (replace(first, color=second.color), replace(second, color=first.color), *rest)
    altered["swap_attribute"] = replace(scene, groups=recolored)
    altered["swap_object"] = replace(scene, groups=(second, first, *rest))
    altered["replace_relation"] = replace(scene, axis=AXES[1 - AXES.index(scene.axis)])
    return altered


def _group(rng: Random, *, count: int, color: str, shape: str, size: str) -> Group:
    # A texture would hide the shape of a small object.
    texture = rng.choice(TEXTURES) if size == "large" else "plain"
    return Group(count=count, size=size, texture=texture, color=color, shape=shape)
