"""What a tracker is that shows runs beside MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pipelines.tracking.journal import Record


class Board(Protocol):
    """One run as a tracker shows it; `seconds` are those since the epoch."""

    def numbers(self, numbers: Mapping[str, float], *, step: int, seconds: float) -> None:
        """What was measured at a step."""

    def picture(self, key: str, file: Path, *, step: int, seconds: float) -> None:
        """What a step looks like."""

    def settings(self, settings: Mapping[str, Any], *, seconds: float) -> None:
        """Of the run, by dotted key; there may be more of them later."""

    def description(self, text: str, *, seconds: float) -> None:
        """Markdown; a later one replaces it."""

    def flush(self) -> None:
        """Bring what was said so far to where a kill of this process does not lose it."""

    def close(self) -> None:
        """Nothing more will be said."""


class Tracker(Protocol):
    """Shows runs."""

    name: str
    """In `machine.tracking`."""
    title: str
    """What users call it."""

    def how_to_see(self, folder: Path) -> str:
        """The command that shows the runs that were written below a folder."""
        ...

    def board(self, folder: Path, place: str, begin: Record) -> Board:
        """Of a run whose journal begins so: of a new one, or of one to go on with.

        Args:
            folder: of all runs.
            place: of the run below it.
        """
        ...
