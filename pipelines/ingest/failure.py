"""Why a URL gave no image."""

from typing import NamedTuple

NO_ANSWER = "no answer in time"  # the same whether a host was asked or known to be silent


class Failure(Exception):  # noqa: N818 - most of them are no errors
    """Why a URL gave no image."""

    def __init__(self, outcome: str, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retry_after = retry_after
        """Seconds that the host asks to wait."""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may have another outcome a moment later."""
        return self.outcome in ("timeout", "http_429") or self.outcome.startswith("http_5")


class Download(NamedTuple):
    """The raw answer to a request, or why there is none."""

    outcome: str
    error: str | None
    body: bytes | None
