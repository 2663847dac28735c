"""The one convention every config dataclass follows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class StrictConfig:
    """Base of config dataclasses: a key that is not a field is an error, never ignored."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # read by pydantic; vlp itself never imports it


def check_name(name: str) -> None:
    """Raise a ValueError for a name that makes no folder."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"name must be letters, digits and any of _ . -, got {name!r}")


@contextmanager
def naming(prefix: str) -> Iterator[None]:
    """Put the key of a setting before the message of a ValueError about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error
