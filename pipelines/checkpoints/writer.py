"""Checkpoints written while training goes on."""

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipelines.checkpoints.checkpoint import Contents, TrainingState, save_checkpoint
from pipelines.checkpoints.mirroring import Mirroring
from pipelines.checkpoints.store import CheckpointPlace, checkpoint_name
from vlp.core.distributed import is_main
from vlp.run import RunConfig
from vlp.training.host_copy import HostCopy


class CheckpointWriter:
    """Copies the state of a run, and writes the copy in a thread; a context, which ends with the last one.

    One checkpoint is written at a time: the next one waits for it. What fails in the thread is raised by the
    next `save`, or at the end of the context.
    """

    def __init__(self, place: CheckpointPlace, config: RunConfig) -> None:
        self._place, self._config = place, config
        self._memory = HostCopy()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None
        self._mirroring = Mirroring(place, place.mirror) if place.mirror is not None and is_main() else None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()  # waits for the checkpoint that is being written
        if self._mirroring:
            self._mirroring.stop()
        if error is not None:
            return self._tell()
        self.wait()
        if self._mirroring:
            self._mirroring.finish()

    def save(self, state: TrainingState, metrics: Mapping[str, float], *, keep: Collection[str] = ()) -> None:
        """Take a checkpoint of this moment; it is on disk some time later.

        Args:
            metrics: what was measured of the model.
            keep: names of former checkpoints that have to stay for now.
        """
        self.wait()
        contents = Contents.of(self._config, state)
        model, training = self._memory.take([contents.model, contents.training])
        kept = Contents(contents.config, model, training)
        self._saving = self._thread.submit(self._write, kept, metrics, keep)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, and raise what it failed with."""
        saving, self._saving = self._saving, None
        if saving:
            saving.result()

    def _tell(self) -> None:
        """Say what failed here; the error elsewhere that ends the run goes before it."""
        if self._saving and (failure := self._saving.exception()):
            print(
                f"[{self._place.label}] the last checkpoint could not be written, too: {failure}", flush=True
            )

    def make_room(self, step: int, *, keep: Collection[str] = ()) -> None:
        """Delete the run's superfluous checkpoints up to a step, by what is known of them by now.

        Args:
            keep: names of those that have to stay for now.
        """
        if self._mirroring is None:
            self._place.retention.apply(self._place.folder, step=step, keep=keep)
        else:
            self._mirroring.make_room(step, keep=keep)
            self._mirroring.notify()

    def _write(self, contents: Contents, metrics: Mapping[str, float], keep: Collection[str]) -> None:
        step = contents.training["step"]
        save_checkpoint(self._place.folder / checkpoint_name(step), contents, metrics=metrics)
        self.make_room(step, keep=keep)
