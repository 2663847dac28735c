"""The files of an SQLite store, and whether they are whole."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pipelines.tracking.terminal import warn

ARTIFACTS_NAME = "mlartifacts"


def database_path(tracking_uri: str) -> Path | None:
    """The file of a `sqlite:///` store; None for any other store."""
    scheme = "sqlite:///"
    return Path(tracking_uri.removeprefix(scheme)).absolute() if tracking_uri.startswith(scheme) else None


def artifacts_path(database: Path) -> Path:
    """The artifacts of a SQLite store lie beside it."""
    return database.parent / ARTIFACTS_NAME


def is_whole(database: Path) -> bool:
    """Whether the file has the experiment that MLflow makes last; one that is busy now may be."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM experiments").fetchone() is not None
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)
    except sqlite3.DatabaseError:  # it is none
        return False


def experiments(database: Path) -> dict[str, str]:
    """The ids of all experiments that have runs, by name, the newest first; none of a file that is busy."""
    query = (
        "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active' AND experiment_id IN "
        "(SELECT experiment_id FROM runs) ORDER BY experiment_id DESC"
    )
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return {name: str(number) for name, number in connection.execute(query)}
    except sqlite3.OperationalError:
        return {}


def set_aside(database: Path) -> None:
    """Rename the file with the journals of its transactions, which would be taken for the next one's."""
    aside = f"{database.name}.broken-{time.time_ns()}"
    for ending in ("", "-journal", "-wal", "-shm"):
        part = database.with_name(database.name + ending)
        if part.exists():
            part.rename(database.with_name(aside + ending))
    warn(f"{database} is half made or no MLflow database: it is {aside} now, and a new one gets all records")
