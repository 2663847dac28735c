"""A database on disk for what is too long for memory; it is gone after its use."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from pipelines.config_errors import ConfigError


@contextmanager
def scratch_database(*, max_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of `max_bytes` of memory; what needs more lies in a temporary folder (TMPDIR) meanwhile.

    Raises:
        ConfigError: the temporary folder has no room.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vlp-") as folder,
            duckdb.connect(Path(folder) / "scratch.db") as connection,
        ):
            connection.execute(f"SET memory_limit = '{max_bytes}B'")
            yield connection
    except (duckdb.Error, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"no room to sort the list in {tempfile.gettempdir()}: {reason}; set TMPDIR to a larger folder"
        ) from error
