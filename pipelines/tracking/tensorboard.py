"""The journals of runs as TensorBoard shows them, beside MLflow."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from pipelines.tracking.delivery import journals_below
from pipelines.tracking.journal import FILE_NAME, Journal, Record, is_new, tracked_key
from pipelines.tracking.terminal import warn
from vlp.core.messages import one_line
from vlp.shards.storage.lock import locked_if_free

WHOLE = "journal_bytes.txt"
"""Beside the events: how much of the journal they are."""


class Boards:
    """Writes every journal under `root` as events of TensorBoard while the context is open.

    A run has the place below `folder` that its journal has below `root`. What an ended process has left
    unfinished is written anew from the journal, so each number is there once. One process at a time does so
    for a root; the others wait for their turn. A failure, such as of the disk, stops nothing.
    """

    def __init__(self, root: Path, folder: Path, *, poll_seconds: float = 1.0) -> None:
        self.root, self.folder, self.poll_seconds = root, folder, poll_seconds
        self._boards: dict[Path, _Board] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tensorboard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._stop.wait(self.poll_seconds)
            if not self.root.is_dir():  # nothing is tracked yet
                continue
            with locked_if_free(self.root / ".tensorboard.lock") as is_my_turn:
                if is_my_turn:
                    return self._write()

    def _write(self) -> None:
        is_over, said = False, ""
        while not is_over:
            is_over = self._stop.is_set()  # before the last look
            failure = self._follow()
            if failure and failure != said:
                warn(f"TensorBoard's files in {self.folder} are not complete ({failure})")
            said = failure
            self._stop.wait(self.poll_seconds)
        for board in self._boards.values():
            board.close()

    def _follow(self) -> str:
        """Write what is new; why that failed, if it did."""
        try:
            for found in journals_below(self.root):
                if found not in self._boards:
                    self._boards[found] = _Board(Journal(found), self.folder / found.relative_to(self.root))
                self._boards[found].follow()
        except Exception as error:  # whatever it is, the records stay in the journal
            return one_line(error)
        return ""


class _Board:
    """The events of one run."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal, self.folder = journal, folder
        self.writer: SummaryWriter | None = None
        self.offset = 0
        self.last_step: dict[str, int] = {}

    def follow(self) -> None:
        if self.writer is None:
            if self._is_whole():
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self.writer = SummaryWriter(str(self.folder))
        for record in self.journal.read(self.offset):
            self._write(self.writer, record)
            self.offset = record.end
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            (self.folder / WHOLE).write_text(str(self.offset))

    def _is_whole(self) -> bool:
        size = (self.journal.folder / FILE_NAME).stat().st_size
        return (self.folder / WHOLE).is_file() and (self.folder / WHOLE).read_text() == str(size)

    def _write(self, writer: SummaryWriter, record: Record) -> None:
        fields, seconds = record.fields, record.time / 1000
        match record.kind:
            case "metrics":
                for key, value in fields["metrics"].items():
                    if is_new(key, fields["step"], self.last_step):
                        writer.add_scalar(tracked_key(key), value, fields["step"], walltime=seconds)
            case "image":
                file = self.journal.locate(fields["path"])
                if is_new(fields["key"], fields["step"], self.last_step) and file.is_file():
                    pixels, key = np.asarray(Image.open(file).convert("RGB")), tracked_key(fields["key"])
                    writer.add_image(key, pixels, fields["step"], walltime=seconds, dataformats="HWC")
            case "params":
                writer.add_text("settings", _table(fields["params"]), walltime=seconds)
            case "description":
                writer.add_text("description", fields["text"], walltime=seconds)
            case _:
                pass  # models, data sets and files are MLflow's


def _table(settings: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {value} |" for key, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])
