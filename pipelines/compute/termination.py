"""SIGTERM, by which Slurm, Kubernetes and spot nodes announce the end: work ends in order, to go on later."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pipelines.config.errors import Terminated, is_terminated

EXIT_CODE = 128 + signal.SIGTERM


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """The first SIGTERM raises `Terminated` in the main thread, a second one ends the process at once.

    Where Ray is waited for, what is raised is a KeyboardInterrupt until it comes here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    Terminated.is_asked = False
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        raise (Terminated if is_terminated(error) else error) from None
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def ending_softly(ask: Callable[[], None]) -> Iterator[None]:
    """SIGTERM asks the work to end by itself; `Terminated` is raised when it has.

    Args:
        ask: called once, between any two instructions of the main thread.
    """
    if not _is_heeded():
        yield
        return
    is_asked = False

    def handle(*_: Any) -> None:
        nonlocal is_asked
        Terminated.is_asked = is_asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ask()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if not is_asked:
            signal.signal(signal.SIGTERM, _terminate)
    if is_asked:
        raise Terminated


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """What a library does about SIGTERM meanwhile is undone: Ray takes it for itself."""
    is_heeded = _is_heeded()
    try:
        yield
    finally:
        if is_heeded:
            signal.signal(signal.SIGTERM, _terminate)


def _is_heeded() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGTERM) is _terminate


def _terminate(*_: Any) -> NoReturn:
    Terminated.is_asked = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process
    raise Terminated
