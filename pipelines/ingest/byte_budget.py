"""How many bytes of answers may be held at a time, counted as they arrive."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition


class ByteBudget:
    """Bytes of bodies that may be held at a time; who needs more waits for others to be given back.

    A slow body holds what it has sent, and the unfinished bodies of one host hold half of the budget at most:
    so no host holds up the others. Bytes are granted only if the largest unfinished body could still grow to
    its end afterwards, which is the banker's algorithm for equal claims: so nobody waits for ever.

    Args:
        largest: bytes of a body at most.
    """

    def __init__(self, total: int, *, largest: int) -> None:
        self._total, self._of_host = total, max(total // 2, largest)
        self._largest = largest
        self._held = 0
        self._unfinished: list[Incoming] = []
        self._changed = Condition()

    @property
    def held(self) -> int:
        """Bytes that were not given back yet."""
        return self._held

    @contextmanager
    def receive(self, host: str) -> Iterator["Incoming"]:
        """A body that is read within this context; its bytes are held afterwards, unless it fails."""
        body = Incoming(self, host)
        with self._changed:
            self._unfinished.append(body)
        kept = 0
        try:
            yield body
            kept = body.size
        finally:
            with self._changed:
                self._unfinished.remove(body)
                self._give_back(body.reserved - kept)

    def release(self, count: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._give_back(count)

    def grant(self, body: "Incoming", count: int) -> None:
        """Wait until a body may take so many bytes more."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(body, count))
            body.reserved += count
            self._held += count

    def _fits(self, body: "Incoming", count: int) -> bool:
        sizes = {other: other.reserved + count * (other is body) for other in self._unfinished}
        of_host = [size for other, size in sizes.items() if other.host == body.host]
        return (
            self._held + count <= self._total
            and self._is_safe(list(sizes.values()), self._total)
            and self._is_safe(of_host, self._of_host)
        )

    def _is_safe(self, sizes: Sequence[int], total: int) -> bool:
        """Whether the largest body could still be read to its end while all others wait."""
        return sum(sizes) + self._largest - max(sizes) <= total

    def _give_back(self, count: int) -> None:
        self._held -= count
        self._changed.notify_all()


class Incoming:
    """A body on its way."""

    def __init__(self, budget: ByteBudget, host: str) -> None:
        self._budget = budget
        self.host = host
        self.size = 0
        """Bytes that have arrived."""
        self.reserved = 0
        """Bytes that it may have; as many as have arrived, or a part more."""

    def reserve(self, count: int) -> None:
        """Wait until so many bytes more may arrive."""
        self._budget.grant(self, max(self.size + count - self.reserved, 0))
