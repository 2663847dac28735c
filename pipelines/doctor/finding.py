"""What a check has found: good, or bad with its remedy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.config.errors import UserError, refusal
from pipelines.config.secrets import without_secrets
from vlp.core.messages import one_line


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: Literal["good", "bad", "skip"]
    what: str
    said: str
    """What was found; after a semicolon the remedy, if that is bad."""

    def __str__(self) -> str:
        return without_secrets(f"{self.verdict:4} {self.what}: {self.said}")

    def on(self, node: str) -> "Finding":
        """The same, of one node."""
        return replace(self, what=f"{node} {self.what}")


def examine(what: str, check: Callable[[], str], *, remedy: str) -> Finding:
    """Do a check, which returns what it has found, or raises what is wrong.

    Args:
        remedy: for an error that is not a `UserError`, which names its own.
    """
    try:
        return Finding("good", what, check())
    except UserError as error:
        return Finding("bad", what, one_line(error))
    except Exception as error:
        said = refusal(error)
        reason = f"{type(error).__name__}: {one_line(error)[:300]}"
        return Finding("bad", what, said or f"{reason}; {remedy}")
