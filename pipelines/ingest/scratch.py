"""A database on disk for what is too long for memory; it is gone after its use."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from pipelines.config.errors import ConfigError, UserError
from vlp.core.messages import one_line

BYTES_PER_THREAD = 2**27  # what a sort of its own needs; settings ask for as much at least


@contextmanager
def scratch_database(*, max_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of `max_bytes` of memory; what needs more lies in a temporary folder (TMPDIR) meanwhile.

    Raises:
        ConfigError: the memory or the temporary folder has no room.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vlp-") as folder,
            duckdb.connect(Path(folder) / "scratch.db") as connection,
        ):
            connection.execute(f"SET memory_limit = '{max_bytes}B'")
            connection.execute(
                f"SET threads = {max(1, min(os.cpu_count() or 1, max_bytes // BYTES_PER_THREAD))}"
            )
            connection.execute("SET preserve_insertion_order = false")  # who needs an order asks for it
            yield connection
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(f"max_grouping_bytes={max_bytes} is too little for the list; double it") from error
    except (duckdb.Error, OSError) as error:
        reason = one_line(error)
        raise UserError(
            f"no room to sort the list in {tempfile.gettempdir()}: {reason}; set TMPDIR to a larger folder"
        ) from error
