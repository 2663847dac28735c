"""Where tests find the repository, and the data that lies beside it."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = (REPOSITORY / ".." / "shared" / "data").resolve()
