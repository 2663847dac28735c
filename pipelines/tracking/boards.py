"""The journals of runs as other trackers show them, beside MLflow."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from pipelines.tracking.delivery import journals_below
from pipelines.tracking.journal import FILE_NAME, Journal, Record, is_new, tracked_key
from pipelines.tracking.terminal import warn
from pipelines.tracking.tracker import Board, Tracker
from vlp.core.messages import one_line
from vlp.shards.storage.lock import locked_if_free

SHOWN = "journal_bytes.txt"
"""In the place of a run, for each tracker: how much of the journal that is shown."""


def boards(names: Sequence[str], root: Path, work_folder: Path) -> AbstractContextManager[object]:
    """Context in which the trackers of these names show what is journaled below `root`."""
    context = ExitStack()
    for name in names:
        tracker = tracker_of(name, experiment=root.name)
        folder = (work_folder / name / root.name).absolute()
        print(f"boards:  {tracker.how_to_see(folder)}", flush=True)
        context.enter_context(Boards(root, folder, tracker))
    return context


def tracker_of(name: str, *, experiment: str) -> Tracker:
    """By its name in `machine.tracking`; only then is its package imported, which takes its time."""
    if name == "tensorboard":
        from pipelines.tracking.tensorboard import TensorBoard

        return TensorBoard()
    from pipelines.tracking.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases(project=experiment)


class Boards:
    """Has a tracker show every journal under `root` while the context is open.

    A run has the place below `folder` that its journal has below `root`. Where an ended process has left off,
    the next goes on. One process at a time does so for a root; the others wait for their turn. A failure,
    such as of the disk, stops nothing.
    """

    def __init__(self, root: Path, folder: Path, tracker: Tracker, *, poll_seconds: float = 1.0) -> None:
        self.root, self.folder, self.tracker, self.poll_seconds = root, folder, tracker, poll_seconds
        self._shown: dict[Path, _Shown] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=tracker.title, daemon=True)

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
            with locked_if_free(self.root / f".{self.tracker.name}.lock") as is_my_turn:
                if is_my_turn:
                    return self._write()

    def _write(self) -> None:
        is_over, said = False, ""
        while not is_over:
            is_over = self._stop.is_set()  # before the last look
            failure = self._follow()
            if failure and failure != said:
                warn(f"{self.tracker.title}'s files in {self.folder} are not complete ({failure})")
            said = failure
            self._stop.wait(self.poll_seconds)
        for shown in self._shown.values():
            shown.close()

    def _follow(self) -> str:
        """Write what is new; why that failed, if it did."""
        try:
            for found in journals_below(self.root):
                if found not in self._shown:
                    place = str(found.relative_to(self.root))
                    self._shown[found] = _Shown(Journal(found), self.folder, place)
                self._shown[found].follow(self.tracker)
        except Exception as error:  # whatever it is, the records stay in the journal
            return one_line(error)
        return ""


class _Shown:
    """One run's journal, and the board that it is shown on."""

    def __init__(self, journal: Journal, folder: Path, place: str) -> None:
        self.journal, self.folder, self.place = journal, folder, place
        self.board: Board | None = None
        self.offset = 0
        self.last_step: dict[str, int] = {}

    def follow(self, tracker: Tracker) -> None:
        if self.board is None:
            begin = self.journal.first("begin")
            if begin is None or self._is_whole():
                return
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._pass_over(self._shown_bytes())
            self.board = tracker.board(self.folder, self.place, begin)
        before = self.offset
        for record in self.journal.read(self.offset):
            self._show(self.board, record)
            self.offset = record.end
        if self.offset > before:
            self.board.flush()
            self._mark.write_text(str(self.offset))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    @property
    def _mark(self) -> Path:
        return self.folder / self.place / SHOWN

    def _is_whole(self) -> bool:
        return self._shown_bytes() == (self.journal.folder / FILE_NAME).stat().st_size

    def _shown_bytes(self) -> int:
        return int(self._mark.read_text() or 0) if self._mark.is_file() else 0

    def _pass_over(self, shown_bytes: int) -> None:
        """Learn which steps an earlier process has shown."""
        for record in self.journal.read():
            if record.end > shown_bytes:
                return
            for key in record.fields.get("metrics", ()) if record.kind == "metrics" else ():
                is_new(key, record.fields["step"], self.last_step)
            if record.kind == "image":
                is_new(record.fields["key"], record.fields["step"], self.last_step)
            self.offset = record.end

    def _show(self, board: Board, record: Record) -> None:
        fields, seconds = record.fields, record.time / 1000
        match record.kind:
            case "metrics":
                step = fields["step"]
                numbers = {
                    tracked_key(key): value
                    for key, value in fields["metrics"].items()
                    if is_new(key, step, self.last_step)
                }
                if numbers:
                    board.numbers(numbers, step=step, seconds=seconds)
            case "image":
                file = self.journal.locate(fields["path"])
                if is_new(fields["key"], fields["step"], self.last_step) and file.is_file():
                    board.picture(tracked_key(fields["key"]), file, step=fields["step"], seconds=seconds)
            case "params":
                board.settings(fields["params"], seconds=seconds)
            case "description":
                board.description(fields["text"], seconds=seconds)
            case _:
                pass  # models, data sets and files are MLflow's
