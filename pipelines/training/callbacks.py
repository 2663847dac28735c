"""What the driver says and decides while Ray Train works."""

import logging
import threading
from typing import Any

import ray
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from pipelines.training.job import TrainJob
from vlp.data.quarantine import UnreadableDataError
from vlp.training.bad_steps import BadStepError

CAUSES = " Some common causes include: "
"""With which Ray goes on, where a process has died, for the rest of a paragraph."""


class AnnounceFailures(UserCallback):
    """Tells that a worker died, and that the run goes on by itself, unless that would end alike."""

    def __init__(self, job: TrainJob) -> None:
        self.name = job.config.name
        self.hang_seconds = job.machine.recovery.hang_seconds

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            reason = self._reason(error)
            if isinstance(error, UnreadableDataError | BadStepError):
                # Ray Train would print a traceback of what is said in one line.
                logging.disable(logging.ERROR)
                raise type(error)(reason)  # ends the run: another attempt would come to the same
            # An attempt that finds no room is made again; Ray Train would print its traceback each time.
            logging.getLogger("ray.train").setLevel(logging.CRITICAL)
            print(f"[pretrain {self.name}] worker {rank} failed: {reason}", flush=True)

    def _reason(self, error: Exception) -> str:
        if type(error).__name__ == "WorkerHealthCheckTimeoutError":  # a private class of Ray Train
            return (
                f"it gave no sign of life for {self.hang_seconds:g} s (machine.recovery.hang_seconds), and "
                "is treated as dead"
            )
        said = str(error).partition(CAUSES)[0].strip()
        return said.splitlines()[-1] if said else type(error).__name__


class StartWatch(WorkerGroupCallback):
    """Starts workers anew that do not begin to train: Ray Train asks for signs of life only from then on.

    Every further attempt may take twice as long, for a machine that is only busy.
    """

    def __init__(self, job: TrainJob) -> None:
        self.name, self.patience = job.config.name, job.machine.recovery.hang_seconds
        self._timer: threading.Timer | None = None

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Begin to wait; called when the workers' processes are there."""
        self._timer = threading.Timer(self.patience, self._start_anew, [workers])
        self._timer.daemon = True
        self._timer.start()
        return {}

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """They train."""
        self._cancel()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """They end, perhaps before they trained."""
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _start_anew(self, workers: list[Any]) -> None:
        nodes = ", ".join(sorted({worker.metadata.node_ip for worker in workers}))
        print(
            f"[pretrain {self.name}] the workers on {nodes} did not begin within {self.patience:g} s "
            "(machine.recovery.hang_seconds), and are started anew",
            flush=True,
        )
        self.patience *= 2
        for worker in workers:
            ray.kill(worker.actor)
