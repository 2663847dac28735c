"""An `ImageStore` in a process of its own: an image that its decoder dies of costs that process alone."""

import os
import signal
import sys
import warnings
from multiprocessing.connection import Connection

from pipelines.compute.child_process import ChildProcess
from pipelines.ingest.failure import Download
from pipelines.ingest.image import ImageStore
from pipelines.ingest.settings import DownloadConfig
from vlp.shards.outcome import StoredImage

TRIES = 2
"""Processes that an image may end: the first may have died of something else."""
DEADLINE = signal.SIGPROF
"""Ends the process, whatever its decoder does, when an image has used up its time."""
MAX_IN_A_ROW = 5
"""Images in a row that end their processes before that counts as a fault of the machine, not of them."""


class IsolatedImageStore:
    """Resizes and encodes images as `ImageStore` does; what ends the process has an outcome of its own.

    That is `decode_timeout` for an image that takes too long, and `decode` for one that its decoder dies of.
    """

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self._child: ChildProcess | None = None
        self._fatal_in_a_row = 0

    def __call__(self, download: Download) -> StoredImage:
        """What is stored of an answer, or why nothing is.

        Raises:
            OSError: the process cannot start, or dies of one image after the other.
        """
        if download.body is None:
            return StoredImage(download.outcome, download.error)
        for _ in range(TRIES):
            child = self._start()
            try:
                child.send(download)
                stored: StoredImage = child.receive()
            except EOFError:
                is_slow = child.exit_code() == -DEADLINE
                self.close()
                if is_slow:
                    return StoredImage("decode_timeout", f"takes more than {self.config.decode_timeout:g} s")
                continue
            self._fatal_in_a_row = 0
            return stored
        self._fatal_in_a_row += 1
        if self._fatal_in_a_row == MAX_IN_A_ROW:
            raise OSError(f"the decoder dies of {MAX_IN_A_ROW} images in a row; does it lack memory?")
        return StoredImage("decode", "the decoder dies of it")

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _start(self) -> ChildProcess:
        """A process that is ready, started now if there is none."""
        if self._child is None:
            self._child = ChildProcess(__name__)
            try:
                self._child.send(self.config)
                self._child.receive()
            except EOFError as error:
                self.close()
                raise OSError("the process that decodes images does not start") from error
        return self._child


def serve(connection: Connection) -> None:
    """Answer until the other end hangs up."""
    _silence_libraries()
    config: DownloadConfig = connection.recv()
    store = ImageStore(config)
    signal.signal(DEADLINE, signal.SIG_DFL)
    try:
        connection.send("ready")
        while True:
            download: Download = connection.recv()
            signal.setitimer(signal.ITIMER_PROF, config.decode_timeout)
            stored = store(download)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send(stored)
    except (EOFError, ConnectionError):
        return


def _silence_libraries() -> None:
    """What decoders and Pillow say of hostile images is in the outcomes; a traceback still reaches stderr."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
