"""What is said to users."""

from collections.abc import Sequence

MAX_NAMED = 3


def one_line(error: object) -> str:
    """The message of an error, or a text, without line breaks."""
    return " ".join(str(error).split())


def some_of(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are: `a, b, c and 4 more`."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def size_text(num_bytes: float) -> str:
    """A number of bytes in the unit that suits it: `3.15 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
