"""Waiting for a store that does not answer: what cannot be read now is not broken."""

import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from vlp.shards.storage.folder import UnreachableError

PATIENCE_SECONDS = 600.0
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0

Read = TypeVar("Read")


def patiently(read: Callable[[], Read]) -> Read:
    """What is read, as soon as the store answers.

    Raises:
        UnreachableError: it has not answered for `PATIENCE_SECONDS`.
    """
    deadline, delay = time.monotonic() + PATIENCE_SECONDS, FIRST_DELAY_SECONDS
    while True:
        try:
            return read()
        except UnreachableError as error:
            if time.monotonic() > deadline:
                raise
            if delay == FIRST_DELAY_SECONDS:
                warnings.warn(f"waiting for {error}", stacklevel=2)
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)
