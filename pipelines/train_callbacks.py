"""What the driver says while Ray Train works."""

from typing import Any

from ray.train import UserCallback


class AnnounceFailures(UserCallback):
    """Tells that a worker died, and that the run goes on by itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            print(f"[pretrain {self.name}] worker {rank} failed: {reason}", flush=True)
