"""What a pipeline of a cluster makes does not depend on what the cluster loses meanwhile."""

import tempfile
from pathlib import Path

import pytest

from tests.drills.recovery import drill


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost() -> None:
    with tempfile.TemporaryDirectory(prefix="vlp-drill-") as folder:
        assert drill(Path(folder)) == []
