"""Waiting for what will be so, however busy the machine is."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    """Return as soon as it is so; the test fails where it never is."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(0.01)
