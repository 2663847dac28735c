"""Mistakes and failures, told in one line that names the culprit and the remedy."""

import difflib
import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

MAKE_ROOM, MAY_WRITE = "make room there", "get the right to write there"
REFUSED = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: MAKE_ROOM,
    errno.EROFS: MAY_WRITE,
    errno.EACCES: MAY_WRITE,
    errno.EPERM: MAY_WRITE,
    errno.ENOTDIR: "a file is in the place of a folder: move it",
    errno.EEXIST: "a file is in the place of a folder: move it",
}


class UserError(Exception):
    """What a user can mend: one line that names what is wrong, and the remedy."""


class ConfigError(UserError):
    """A mistake in the settings: one line that names the key, the value, where it was set, and the remedy."""


class Terminated(KeyboardInterrupt):
    """The process was told to end, by SIGTERM."""

    is_asked: ClassVar[bool] = False
    """Whether the process has been told so."""


def is_terminated(error: BaseException) -> bool:
    """Whether an interruption came by SIGTERM: what waits for Ray raises KeyboardInterrupt in its place."""
    return isinstance(error, KeyboardInterrupt) and Terminated.is_asked


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


def refusal(error: Exception) -> str | None:
    """What a file system refused, and the remedy; None for an error of another kind."""
    from vlp.shards.storage.folder import FolderError

    if isinstance(error, FolderError):
        return str(error)
    if not isinstance(error, OSError) or error.errno not in REFUSED:
        return None
    place = f"{error.filename}: " if error.filename is not None else ""
    return (
        f"{place}{error.strerror}; {REFUSED[error.errno]}, or choose another folder, such as by "
        "machine.storage or -o"
    )


def nearest(given: str, valid: Iterable[str]) -> str:
    """`; did you mean X?`, or `; valid: X, Y` where nothing is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(given, valid, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid: {', '.join(valid)}" if valid else ""
