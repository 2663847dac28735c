"""Items of a set that are looked at: what was asked, what belongs to it, and what came first."""

from typing import NamedTuple


class Example(NamedTuple):
    """One item. An image is in the form in which the set has it, a text is plain."""

    asked: bytes | str
    right: bytes | str
    first: bytes | str
    """What the model put first."""
    rank: int
    """The place of what is right, from 1."""


class Examples(NamedTuple):
    """Those that went best, and those that went worst."""

    best: list[Example]
    worst: list[Example]
