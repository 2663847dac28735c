"""Scenes to sentences: many wordings, in more or less detail, all true."""

from collections.abc import Sequence
from random import Random

from vlp.tiny_world.scene import Group, Scene

CLASS_TEMPLATES = (
    "a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a drawing of a {}.",
    "this picture shows a {}.",
)
FRAMES = (
    "{}.",
    "{}.",
    "{}",
    "a picture of {}.",
    "an image of {}.",
    "a drawing of {}.",
    "this picture shows {}.",
    "here we see {}.",
)
COUNTS = {2: "two", 3: "three", 4: "four"}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}
TEXTURE_WORDS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
}
SHAPE_SYNONYMS = {
    "circle": "disc",
    "square": "box",
    "cross": "plus",
    "ring": "hoop",
    "diamond": "rhombus",
    "crescent": "moon",
    "flower": "blossom",
}
BACKGROUND_WORDS = {
    "plain": ("plain", "even"),
    "gradient": ("fading", "shaded"),
    "noise": ("noisy", "cloudy"),
    "checks": ("checked", "checkered"),
}
BEFORE_BACKGROUND = ("on", "against", "in front of")
# The wordings of both axes stand in the same order, so that a changed axis changes only the relation's words.
ORDERED = {
    ("horizontal", 2): (
        "{0} to the left of {1}",
        "{1} to the right of {0}",
        "{0} left of {1}",
        "{1} right of {0}",
        "{0} on the left and {1} on the right",
        "{1} with {0} to the left",
    ),
    ("vertical", 2): (
        "{0} above {1}",
        "{1} below {0}",
        "{0} over {1}",
        "{1} under {0}",
        "{0} at the top and {1} at the bottom",
        "{1} with {0} above",
    ),
    ("horizontal", 3): (
        "{0}, {1} and {2} from left to right",
        "{2}, {1} and {0} from right to left",
        "{1} with {0} to the left and {2} to the right",
        "{0} to the left of {1} and {2}",
        "{0} on the left, {1} in the middle and {2} on the right",
    ),
    ("vertical", 3): (
        "{0}, {1} and {2} from top to bottom",
        "{2}, {1} and {0} from bottom to top",
        "{1} with {0} above and {2} below",
        "{0} above {1} and {2}",
        "{0} at the top, {1} in the middle and {2} at the bottom",
    ),
}
UNORDERED = {
    2: ("{0} and {1}", "{1} and {0}", "{0} next to {1}"),
    3: ("{0}, {1} and {2}", "{1}, {2} and {0}"),
}


def describe(scene: Scene, rng: Random, *, tells_color: bool = True, tells_order: bool = True) -> str:
    """One true sentence: always counts and shapes; colors and the order of the groups where asked for.

    Two scenes with as many groups are worded alike by generators in the same state.
    """
    phrases = [_group_phrase(group, rng, tells_color=tells_color) for group in scene.groups]
    num_groups = len(phrases)
    if num_groups == 1:
        sentence = phrases[0]
    else:
        wordings = ORDERED[scene.axis, num_groups] if tells_order else UNORDERED[num_groups]
        sentence = _pick(wordings, rng).format(*phrases)
    before, background = _pick(BEFORE_BACKGROUND, rng), _pick(BACKGROUND_WORDS[scene.background], rng)
    if rng.random() < 0.25:
        sentence = f"{sentence} {before} {_with_article(background)} background"
    return _pick(FRAMES, rng).format(sentence)


def draw_captions(scene: Scene, rng: Random, *, count: int) -> list[str]:
    """Different true sentences; a fifth tell no colors, so that shapes must be learned, a sixth no order."""
    captions: list[str] = []
    while len(captions) < count:
        caption = describe(scene, rng, tells_color=rng.random() > 1 / 5, tells_order=rng.random() > 1 / 6)
        if caption not in captions:
            captions.append(caption)
    return captions


def _group_phrase(group: Group, rng: Random, *, tells_color: bool) -> str:
    size, texture = _pick(SIZE_WORDS[group.size], rng), _pick(TEXTURE_WORDS[group.texture], rng)
    tells_size, tells_texture, uses_synonym = rng.random() < 0.4, rng.random() < 0.4, rng.random() < 0.15
    noun = SHAPE_SYNONYMS.get(group.shape, group.shape) if uses_synonym else group.shape
    words = [size] * tells_size + [texture] * tells_texture + [group.color] * tells_color
    if group.count == 1:
        return _with_article(" ".join([*words, noun]))
    return " ".join([COUNTS[group.count], *words, noun + ("es" if noun[-1] in "sx" else "s")])


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _pick(options: Sequence[str], rng: Random) -> str:
    # Exactly one draw whatever the number of options, so that an altered scene keeps its wording.
    return options[int(rng.random() * len(options))]
