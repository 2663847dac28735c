"""A training that is asked to end before its last step."""

from typing import Any, Protocol

import torch
import torch.distributed as dist

from vlp.core.distributed import is_main, world_size


class StopFile(Protocol):
    """A file, on this node or another."""

    def exists(self) -> bool:
        """Whether it is there."""
        ...


class Stopping:
    """Finds out whether the run is asked to end, by a file; all workers do so after the same step.

    Rank 0 looks, and its answer is used a step later: nobody waits for it, and no value is asked back from a
    GPU.
    """

    def __init__(self, file: StopFile) -> None:
        self._file = file
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._is_asked = torch.zeros(1, dtype=torch.uint8)
        self._sent: dist.Work | None = None

    def is_asked(self) -> bool:
        """Whether the run ends after this step; a collective."""
        if self._group is None:
            return self._file.exists()
        if self._sent is not None:
            self._sent.wait()
        is_asked = bool(self._is_asked)
        self._is_asked = torch.tensor([is_main() and self._file.exists()], dtype=torch.uint8)
        self._sent = dist.broadcast(self._is_asked, src=0, group=self._group, async_op=True)
        return is_asked
