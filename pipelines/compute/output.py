"""What of Ray's output reaches the terminal: what workers print, as they print it."""

import os
import re
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

NATIVE_LINE = re.compile(r"(\(.*?\) )?\[\d{4}-\d\d-\d\d [\d:,]+ [DIWE] .*?\] (\(\w+\) )?\w+\.cc:\d+: ")
"""What Ray's C++ parts print, as `[2026-01-31 12:00:00,000 E 42 42] core_worker.cc:99: ...`; all of it is in
Ray's log files, too."""
OF_A_DEATH = "A worker died or was killed while executing a task"
"""How Ray begins to tell of what the command says in one line, if it matters: most work is done again."""
HANDLER = "ray_print_logs"
SILENT = {"PlacementGroupCleaner"}
"""Actors of Ray that tell of what is usual: this one, that a trial that was stopped gave back its CPUs."""


def show_workers_alone() -> None:
    """Print what workers print, without a prefix; what Ray's servers log stays in their files.

    A line on standard error that comes from another machine says from which.
    """
    from ray._private import worker
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    dispatcher.remove_handler(HANDLER)
    dispatcher.add_handler(HANDLER, _show)
    worker.print_to_stdstream = _tell


def _show(data: dict[str, Any]) -> None:
    is_of_worker = str(data.get("pid")).isdigit()  # a server of Ray has a name there
    if not is_of_worker or data.get("actor_name") in SILENT:
        return
    is_error, ip = data.get("is_err"), data.get("ip")
    origin = f"({ip}) " if is_error and ip != data.get("localhost") else ""
    for line in data.get("lines", []):
        if not NATIVE_LINE.match(line):
            print(f"{origin}{line}", file=sys.stderr if is_error else sys.stdout, flush=True)


def _tell(data: dict[str, Any], ignore_prefix: bool) -> None:
    """What Ray has to tell by itself, such as that memory is short."""
    from ray._private.worker import print_worker_logs

    if not any(line.startswith(OF_A_DEATH) for line in data["lines"]):
        print_worker_logs(data, sys.stderr if data["is_err"] else sys.stdout, ignore_prefix)


@contextmanager
def without_native_lines() -> Generator[None]:
    """Keep what Ray's C++ parts log in this process from its terminal.

    They write to the file descriptor, past Python. Whatever else is written there appears at the end.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    python_stderr = sys.stderr
    with tempfile.TemporaryFile("w+", errors="replace") as written:
        os.dup2(written.fileno(), 2)
        try:
            if python_stderr is sys.__stderr__:
                sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1)
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written:
                if not NATIVE_LINE.match(line):
                    print(line, end="", file=sys.stderr, flush=True)
