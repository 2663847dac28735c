"""A package of one's own, as a user writes it elsewhere: the manual's mask and objective."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.manual import blocks
from vlp.masking import STRATEGIES
from vlp.objectives import OBJECTIVES

MASK = next(code for code in blocks("python") if "CheckerboardMask" in code)
OBJECTIVE = next(code for code in blocks("python") if "MeanColourConfig" in code)


def write_package(folder: Path, name: str = "my_package") -> Path:
    """`NAME.masks` and `NAME.objectives` in a folder, which is returned."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    (folder / name / "masks.py").write_text(MASK)
    (folder / name / "objectives.py").write_text(OBJECTIVE)
    return folder


@contextmanager
def forgotten() -> Iterator[None]:
    """Context after which what packages called `my_package` have registered is gone, and they too."""
    before = [(registry, dict(registry)) for registry in (STRATEGIES, OBJECTIVES)]
    yield
    for registry, classes in before:
        registry.clear()
        registry.update(classes)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]
