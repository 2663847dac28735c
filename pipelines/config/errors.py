"""Mistakes and failures, told in one line that names the culprit and the remedy."""

import dataclasses
import difflib
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pydantic

from vlp.core.registry import ByName, EachByName


class ConfigError(Exception):
    """A mistake of the user: one line that names the key, the value, the file and the remedy."""


@contextmanager
def blaming(prefix: str = "") -> Iterator[None]:
    """Turn a ValueError about a setting into a ConfigError, with the setting's key before its message."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from error


def training_failure(error: Exception) -> str | None:
    """Why the training workers gave up; None for an error of another kind."""
    if "vlp.data.quarantine" in sys.modules and isinstance(error, _failures()):
        return str(error)
    if "ray.train" not in sys.modules:
        return None
    from ray.train import TrainingFailedError, WorkerGroupError

    if isinstance(error, WorkerGroupError):
        rank, failure = next(iter(error.worker_failures.items()))
        return f"worker {rank}: {str(failure).strip().splitlines()[-1]}"
    return str(error).strip().splitlines()[-1] if isinstance(error, TrainingFailedError) else None


def _failures() -> tuple[type[Exception], ...]:
    """What ends a training at the first attempt, with a message of one line."""
    from vlp.data.quarantine import UnreadableDataError
    from vlp.training.bad_steps import BadStepError

    return UnreadableDataError, BadStepError


def is_refusal(error: Exception) -> bool:
    """Whether a file system refused: an error of one line that names the remedy."""
    from vlp.shards.storage.folder import FolderError

    return isinstance(error, FolderError)


def nearest(given: str, valid: Iterable[str]) -> str:
    """`; did you mean X?`, or `; valid: X, Y` where nothing is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(given, valid, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid: {', '.join(valid)}" if valid else ""


def explain(
    error: pydantic.ValidationError, schema: Any, values: Any, origin: Mapping[str, str], prefix: str
) -> str:
    """The first mistake that pydantic found, in the words of the configuration's own keys."""
    # A mapping was meant for the class in a union, not for the number beside it.
    errors = error.errors()
    first = next(
        (e for e in errors if e["type"] != "float_type" or not isinstance(e["input"], dict)), errors[0]
    )
    path, owner = _locate(first["loc"], schema, values)
    key = ".".join([prefix, *path] if prefix else path)
    problem = _problem(first, key, path, owner)
    return f"{_source(key, first, origin)}: {problem}"


def _problem(first: Any, key: str, path: list[str], owner: Any) -> str:
    kind, context = first["type"], first.get("ctx", {})
    got = f", got {first['input']!r}"
    if kind == "unexpected_keyword_argument":
        fields = [f.name for f in dataclasses.fields(owner)] if owner else []
        return f"{key} is no setting{nearest(path[-1], fields)}"
    if kind == "missing" and isinstance(first["loc"][-1], int):
        return f"{key} needs more values{got}"
    if kind == "missing":
        return f"{key} is missing; set it in a file or as {key}=..."
    if kind == "union_tag_invalid":
        valid = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return f"{key}.name is {context['tag']!r}{nearest(context['tag'], valid)}"
    if kind == "union_tag_not_found":
        is_word = isinstance(first["input"], str)
        return f"{key} needs a name, such as {key}.name={first['input'] if is_word else '...'}{got}"
    if kind == "dict_type":
        return f"{key} needs a name, such as {key}.NAME={first['input']}"
    if kind == "value_error":
        # The error of a class begins with the name of a field; that of a value is about the key.
        where = f"{key}{'.' if isinstance(first['input'], Mapping) else ': '}" if key else ""
        return f"{where}{context['error']}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}{got}"


def _locate(loc: Iterable[Any], schema: Any, values: Any) -> tuple[list[str], Any]:
    """Drop pydantic's union tags from a location; also the dataclass that the last key belongs to."""
    path: list[str] = []
    owner, parent = _dataclasses(schema), None
    for part in loc:
        tagged = [cls for cls in owner if part in (getattr(cls, "name", None), cls.__name__)]
        if tagged and not (isinstance(values, dict) and part in values):
            owner = tagged
            continue
        parent = owner[0] if owner else None
        hints = typing.get_type_hints(parent, include_extras=True) if parent else {}
        if path and part not in hints and not (isinstance(values, dict) and part in values):
            continue  # which member of a union of plain types was tried
        owner = _dataclasses(hints.get(str(part)))
        path.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return path, parent


def _dataclasses(hint: Any) -> list[Any]:
    """Every dataclass that a type annotation allows."""
    for marker in getattr(hint, "__metadata__", ()):
        if isinstance(marker, ByName):
            return list(marker.registry.values())
        if isinstance(marker, EachByName):
            return [marker.settings()]
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [cls for argument in typing.get_args(hint) for cls in _dataclasses(argument)]


def _source(key: str, first: Any, origin: Mapping[str, str]) -> str:
    """The file that set a key, or any key below or above it."""
    message = str(first.get("ctx", {}).get("error", "")).split(" ")[0]
    for candidate in (f"{key}.{message}" if key else message, key):
        for dotted, source in origin.items():
            if dotted == candidate or dotted.startswith(f"{candidate}."):
                return source
    parent = key.rpartition(".")[0]
    return _source(parent, {}, origin) if parent else "configuration"
