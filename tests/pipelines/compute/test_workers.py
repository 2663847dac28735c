"""Workers give one result per row, with Ray and without, whatever becomes of their processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.compute.workers import LocalProcesses, Workers, open_workers
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig

ROWS = [{"number": number} for number in range(7)]


@pytest.fixture
def workers(data_workers: int) -> Workers:
    return open_workers(MachineConfig(data_workers=data_workers))


class Ledger:
    """Counts how often something is begun."""

    def __init__(self, *, start: int) -> None:
        self.start = start
        self.counts: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """How often it was begun, now included."""
        self.counts[number] = self.counts.get(number, self.start) + 1
        return self.counts[number]

    def total(self) -> int:
        """Of all."""
        return sum(self.counts.values())


class Mortal:
    """Dies of the rows named, the first time they are begun."""

    def __init__(self, ledger: Callable[..., Any], fatal: set[int]) -> None:
        self.ledger, self.fatal = ledger, fatal

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        attempt = self.ledger("begin", row["number"])
        if row["number"] in self.fatal and attempt == 1:
            os._exit(1)
        return {"number": row["number"], "attempt": attempt}


def test_every_row_has_one_result_and_a_row_that_ends_its_process_is_begun_again(workers: Workers) -> None:
    ledger = workers.share(Ledger, start=0)
    results = list(workers.map(Mortal, (ledger, {2, 5}), ROWS))
    attempts = {result["number"]: result["attempt"] for result in results}
    assert len(results) == len(ROWS)
    assert attempts == {row["number"]: 2 if row["number"] in (2, 5) else 1 for row in ROWS}
    assert ledger("total") == len(ROWS) + 2


class Lethal:
    """Dies of one row, always."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["number"] == 3:
            os._exit(1)
        return row


class Failing:
    """Raises an exception at one row."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["number"] == 3:
            raise UserError("what the user has to mend")
        return row


class Unready:
    """Cannot be made."""

    def __init__(self) -> None:
        raise UserError("what the user has to mend")


def test_a_row_that_always_ends_its_process_ends_the_work_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^work on 3 ended its process 5 times.*data_workers=1.*$"):
        list(LocalProcesses().map(Lethal, (), ROWS))


@pytest.mark.parametrize("worker", [Failing, Unready])
def test_an_exception_of_a_worker_is_raised_in_the_driver_and_says_where_it_was(worker: type) -> None:
    with pytest.raises(UserError, match="what the user has to mend") as raised:
        list(LocalProcesses().map(worker, (), ROWS))
    assert str(raised.value) == "what the user has to mend"
    assert "test_workers.py" in raised.value.__notes__[0]


class Slow:
    """Notes that it has begun, and takes its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        (self.folder / f"{os.getpid()}").touch()
        if row["number"]:
            time.sleep(60)
        return row


def test_who_stops_reading_ends_the_processes_in_the_middle_of_their_rows(tmp_path: Path) -> None:
    results = LocalProcesses().map(Slow, (tmp_path,), ROWS)
    assert next(results) == ROWS[0]
    results.close()
    begun = [int(file.name) for file in tmp_path.iterdir()]
    assert begun
    assert not any(psutil.pid_exists(pid) for pid in begun)
