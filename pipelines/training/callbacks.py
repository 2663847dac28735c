"""What the driver says and decides while Ray Train works."""

import logging
from typing import Any

from ray.train import UserCallback

from vlp.data.quarantine import UnreadableDataError
from vlp.training.bad_steps import BadStepError


class AnnounceFailures(UserCallback):
    """Tells that a worker died, and that the run goes on by itself, unless that would end alike."""

    def __init__(self, name: str) -> None:
        self.name = name

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            if isinstance(error, UnreadableDataError | BadStepError):
                # Ray Train would print a traceback of what is said in one line.
                logging.disable(logging.ERROR)
                raise type(error)(reason)  # ends the run: another attempt would come to the same
            # An attempt that finds no room is made again; Ray Train would print its traceback each time.
            logging.getLogger("ray.train").setLevel(logging.CRITICAL)
            print(f"[pretrain {self.name}] worker {rank} failed: {reason}", flush=True)
