"""Which tests stay in one process, when pytest runs several (`-n`)."""

import re
from functools import cache

from xdist.scheduler import LoadScopeScheduling

from tests.paths import REPOSITORY

RAYS_FIXTURES = re.compile(r"\b(ray_cluster|data_workers)\b")


class ByFile(LoadScopeScheduling):
    """The tests of a file stay together, with what they share; those of all files that share a Ray, too."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


@cache
def group(file: str) -> str:
    """What a test file belongs to."""
    return "ray" if RAYS_FIXTURES.search((REPOSITORY / file).read_text()) else file
