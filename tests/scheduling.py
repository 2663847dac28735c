"""Which tests stay in one process, when pytest runs several (`-n`), and which begin first."""

import re
from functools import cache

from xdist.scheduler import LoadScopeScheduling

from tests.paths import REPOSITORY

RAY = "ray"
RAYS_FIXTURES = re.compile(r"\b(ray_cluster|data_workers)\b")


class ByFile(LoadScopeScheduling):
    """The tests of a file stay together, with what they share; those of all files that share a Ray, too."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


@cache
def group(file: str) -> str:
    """What a test file belongs to."""
    return RAY if RAYS_FIXTURES.search((REPOSITORY / file).read_text()) else file


@cache
def begins(file: str) -> int:
    """When the tests of a file begin, the least first: what takes long must not be left to one process alone.

    Nothing takes as long as the files that share a Ray; those with a time limit of their own take long, too.
    """
    if group(file) == RAY:
        return 0
    return 1 if "mark.timeout(" in (REPOSITORY / file).read_text() else 2
