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

    title: str

    def how_to_see(self, folder: Path) -> str:
        """The command that shows what was written below a folder."""
        ...

    def board(self, folder: Path, begin: Record) -> Board:
        """Of one run, whose journal begins so, to be written in a folder of its own, or to go on with."""
        ...
