"""Mistakes and failures, told in one line that names the culprit and the remedy."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """What a user can mend: one line that names what is wrong, and the remedy."""


class ConfigError(UserError):
    """A mistake in the settings: one line that names the key, the value, where it was set, and the remedy."""


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
