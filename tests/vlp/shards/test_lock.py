"""A lock is held by one process at a time, and is free when that one is dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlp.shards.storage.lock import locked, locked_if_free

HOLD = """
import signal, sys
from pathlib import Path
from vlp.shards.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


@contextmanager
def held_by_another(file: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def is_free(file: Path) -> bool:
    with locked_if_free(file) as is_mine:
        return is_mine


def test_a_lock_is_free_before_and_after_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert is_free(file)
    with locked(file):
        assert not is_free(file)
    with locked_if_free(file) as is_mine:
        assert is_mine
        assert not is_free(file)
    assert is_free(file)


def test_another_process_that_has_it_is_not_disturbed_by_who_asks(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock"):
        assert [is_free(tmp_path / "lock") for _ in range(3)] == [False, False, False]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock") as process:
        process.send_signal(signal.SIGKILL)
        with locked(tmp_path / "lock"):  # waits for the system
            assert not is_free(tmp_path / "lock")
