"""What a run prints, kept as its log."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from pipelines.config.secrets import without_secrets
from pipelines.tracking.journal import Journal

LOG = "log.txt"


class Tee:
    """A stream whose text also goes to a file, without passwords; all else is the stream's."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        """As the stream does."""
        self._log.write(without_secrets(text))
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def logged(journal: Journal) -> Iterator[None]:
    """Keep what is printed as the run's log, beside its journal; a run that goes on adds to it."""
    file = journal.folder / LOG
    with file.open("a", buffering=1) as log, ExitStack() as stack:
        stack.callback(journal.artifact, file)
        stack.enter_context(redirect_stdout(cast(TextIO, Tee(sys.stdout, log))))
        stack.enter_context(redirect_stderr(cast(TextIO, Tee(sys.stderr, log))))
        yield
