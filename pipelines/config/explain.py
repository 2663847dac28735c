"""What pydantic found wrong, in the words of the configuration's own keys."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pydantic

from pipelines.config.errors import nearest
from pipelines.config.schema import configs_of, dotted_keys, hint_below, similar_key
from vlp.core.config import annotations_of

Key = tuple[str, ...]


class Mistake(NamedTuple):
    """What is wrong, in one line, and whose fault it may be."""

    problem: str
    keys: list[Key]
    """Settings of which the one that was set last is to blame."""


@dataclass(frozen=True)
class Place:
    """Where in a tree of settings an error is."""

    path: Key
    hint: Any
    """Annotation of what is there."""
    owner: Any
    """The config class that the last key of the path belongs to; None where there is none."""
    given: Any
    """What was given to that class."""


def explain(
    error: pydantic.ValidationError, schema: Any, values: Any, *, prefix: str, others: Iterable[str]
) -> Mistake:
    """The first mistake that pydantic found in settings.

    Args:
        prefix: key that the settings stand under; "" for the top.
        others: keys beside those of the schema, one of which may have been meant.
    """
    # A mapping was meant for the class in a union, not for the number beside it.
    errors = error.errors()
    first = next(
        (e for e in errors if e["type"] != "float_type" or not isinstance(e["input"], dict)), errors[0]
    )
    place = _locate(first["loc"], schema, values)
    key = ".".join([prefix, *place.path] if prefix else place.path)
    if first["type"] == "unexpected_keyword_argument":
        own = (f"{prefix}.{other}" if prefix else other for other in dotted_keys(schema, values))
        return Mistake(f"{key} is not a setting{_instead(key, place, [*own, *others])}", [place.path])
    if first["type"] == "missing":
        return _missing(first, key, place)
    if first["type"] == "value_error":
        return _refused(first, key, place)
    culprit = (*place.path, "name") if first["type"] == "union_tag_invalid" else place.path
    return Mistake(_problem(first, key), [culprit])


def _instead(given_key: str, place: Place, others: list[str]) -> str:
    """Which setting was meant in place of one that there is not: of its class, below it, or anywhere else."""
    name, given = place.path[-1], place.given
    if place.owner is not None and name in place.owner.COUNTERPARTS:
        return f"; {place.owner.COUNTERPARTS[name]}"
    below = given[name] if isinstance(given, Mapping) else None
    here = [*annotations_of(place.owner), *dotted_keys(place.owner, given)]
    above = given_key.removesuffix(name)
    for text in (name, *(f"{name}.{key}" for key in (below if isinstance(below, Mapping) else ()))):
        if found := similar_key(text, here, others):
            return f"; did you mean {above if found in here else ''}{found}?"
    return nearest(name, annotations_of(place.owner))


def _missing(error: Any, key: str, place: Place) -> Mistake:
    if isinstance(error["loc"][-1], int):
        return Mistake(f"{key} needs more values, got {error['input']!r}", [place.path])
    above = place.path[:-1]
    return Mistake(f"{key} is missing; set it in a file or as {key}=...", [above] if above else [])


def _refused(error: Any, key: str, place: Place) -> Mistake:
    """A ValueError of ours: of a class, which begins with the name of a setting; or of a value."""
    message, is_of_class = str(error["ctx"]["error"]), isinstance(error["input"], Mapping)
    problem = f"{key}{'.' if is_of_class else ': '}{message}" if key else message
    named = _named(message, place) if is_of_class else []
    return Mistake(problem, named or [place.path])


def _named(message: str, place: Place) -> list[Key]:
    """The settings that a message about a class names: those of the class, and dotted keys of others."""
    own = annotations_of(configs_of(place.hint, place.given)[0])
    words = [tuple(word.split(".")) for word in re.findall(r"[A-Za-z_]\w*(?:\.\w+)*", message)]
    return [(*place.path, *word) for word in words if word[0] in own] + [word for word in words if word[1:]]


def _problem(error: Any, key: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    got = f", got {error['input']!r}"
    if kind == "union_tag_invalid":
        valid = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return f"{key}.name is {context['tag']!r}{nearest(context['tag'], valid)}"
    if kind == "union_tag_not_found":
        is_word = isinstance(error["input"], str)
        return f"{key} needs a name, such as {key}.name={error['input'] if is_word else '...'}{got}"
    if kind == "dict_type" and error["input"] is None:
        return f"{key} is null; leave it out, or name something, such as {key}.NAME=..."
    if kind == "dict_type":
        return f"{key} needs a name, such as {key}.NAME={error['input']}"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}{got}"


def _locate(loc: Iterable[Any], schema: Any, values: Any) -> Place:
    """Drop pydantic's union tags, and places in lists, from a location."""
    place = Place((), schema, None, values)
    for part in loc:
        configs = configs_of(place.hint, values)
        is_key = isinstance(values, Mapping) and part in values
        tagged = [config for config in configs if part in _tags(config)]
        if tagged and not is_key:
            place = Place(place.path, tagged[0], place.owner, place.given)
            continue
        below = hint_below(place.hint, part, values)
        if below is None and not is_key:
            continue  # which member of a union of plain types was tried
        if isinstance(part, int):
            place = Place(place.path, below, place.owner, place.given)
        else:
            place = Place((*place.path, part), below, next(iter(configs), None), values)
        values = _below(values, part)
    return place


def _tags(config: Any) -> Iterator[str]:
    """What pydantic calls a class in a location."""
    yield config.__name__
    if "name" in annotations_of(config):
        yield getattr(config, "name", config.__name__)


def _below(values: Any, part: Any) -> Any:
    try:
        return values[part]
    except (KeyError, IndexError, TypeError):
        return None
