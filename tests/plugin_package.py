"""A package of one's own, as a user writes it elsewhere: the manual's mask and objective."""

from pathlib import Path

from tests.manual import blocks

MASK = next(code for code in blocks("python") if "CheckerboardMask" in code)
OBJECTIVE = next(code for code in blocks("python") if "MeanColourConfig" in code)


def write_package(folder: Path, name: str = "my_package") -> Path:
    """`NAME.masks` and `NAME.objectives` in a folder, which is returned."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    (folder / name / "masks.py").write_text(MASK)
    (folder / name / "objectives.py").write_text(OBJECTIVE)
    return folder
