"""Where tests find the repository, and the data that lies beside it."""

from tests.paths import REPOSITORY

SHARED_DATA = (REPOSITORY / ".." / "shared" / "data").resolve()
