"""What the driver says and decides while Ray Train works."""

import logging
from typing import Any

from ray.train import UserCallback

from pipelines.training.job import TrainJob
from vlp.data.quarantine import UnreadableDataError
from vlp.training.bad_steps import BadStepError


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
        return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
