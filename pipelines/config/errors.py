"""Mistakes and failures, told in one line that names the culprit and the remedy."""

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pydantic

from pipelines.config.schema import configs_of, dotted_keys, similar_key
from vlp.core.config import annotations_of


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
    if first["type"] == "unexpected_keyword_argument":
        problem = f"{key} is no setting{_instead(path, schema, values, owner, prefix)}"
    else:
        problem = _problem(first, key)
    return f"{_source(key, first, origin)}: {problem}"


def _instead(path: list[str], schema: Any, values: Any, owner: Any, prefix: str) -> str:
    """Which setting was meant in place of one that there is not: of its class, below it, or anywhere else."""
    *parents, name = path
    given = values
    for part in parents:
        given = given.get(part) if isinstance(given, Mapping) else None
    value = given.get(name) if isinstance(given, Mapping) else None
    tried = [name, *(f"{name}.{key}" for key in (value if isinstance(value, Mapping) else ()))]
    own, here = list(annotations_of(owner)), list(dotted_keys(owner, given))
    everywhere = [f"{prefix}.{key}" if prefix else key for key in dotted_keys(schema, values)]
    for text in tried:
        if found := similar_key(text, own + here, everywhere):
            return f"; did you mean {found}?"
    return nearest(name, own)


def _problem(first: Any, key: str) -> str:
    kind, context = first["type"], first.get("ctx", {})
    got = f", got {first['input']!r}"
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
    owner, parent = configs_of(schema), None
    for part in loc:
        tagged = [cls for cls in owner if part in (getattr(cls, "name", None), cls.__name__)]
        if tagged and not (isinstance(values, dict) and part in values):
            owner = tagged
            continue
        parent = owner[0] if owner else None
        hints = annotations_of(parent) if parent else {}
        if path and part not in hints and not (isinstance(values, dict) and part in values):
            continue  # which member of a union of plain types was tried
        owner = configs_of(hints.get(str(part)))
        path.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return path, parent


def _source(key: str, first: Any, origin: Mapping[str, str]) -> str:
    """The file that set a key, or any key below or above it."""
    message = str(first.get("ctx", {}).get("error", "")).split(" ")[0]
    for candidate in (f"{key}.{message}" if key else message, key):
        for dotted, source in origin.items():
            if dotted == candidate or dotted.startswith(f"{candidate}."):
                return source
    parent = key.rpartition(".")[0]
    return _source(parent, {}, origin) if parent else "configuration"
