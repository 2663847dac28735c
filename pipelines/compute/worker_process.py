"""A worker in a process of its own, and what goes through the pipe between it and the driver."""

import io
import pickle
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, NamedTuple

Row = dict[str, Any]
Call = Callable[..., Any]
"""Calls a method, by its name, of the object that the driver and its workers share."""


class Request(NamedTuple):
    """A worker calls a method of the shared object."""

    method: str
    arguments: tuple[Any, ...]


class Shared:
    """An object of the driver; who is sent it in a recipe gets a way to call its methods instead."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._lock = Lock()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """One call at a time."""
        with self._lock:
            return getattr(self._target, method)(*arguments)


def pack(worker: type, arguments: tuple[Any, ...]) -> bytes:
    """How a process makes its worker."""
    recipe = io.BytesIO()
    _Pickler(recipe).dump((worker, arguments))
    return recipe.getvalue()


def serve(connection: Connection) -> None:
    """Build the worker of the first message, and answer each row that follows."""

    def call(method: str, *arguments: Any) -> Any:
        _send(connection, Request(method, arguments))
        return _receive(connection)

    try:
        worker, arguments = _Unpickler(io.BytesIO(_receive(connection)), call).load()
        work = worker(*arguments)
        while True:
            _send(connection, work(_receive(connection)))
    except Exception as error:
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        _send(connection, error)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return "shared" if isinstance(obj, Shared) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, recipe: io.BytesIO, call: Call) -> None:
        super().__init__(recipe)
        self._call = call

    def persistent_load(self, pid: str) -> Call:
        return self._call


def _send(connection: Connection, message: Any) -> None:
    try:
        connection.send(message)
    except ConnectionError:
        sys.exit()  # the driver has gone; no failure of the work


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        sys.exit()
