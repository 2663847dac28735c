"""The dependency rules of the design: rooms in order, no circle; and the limit on functions."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

PACKAGES = ("vlp", "pipelines")
FOREIGN = {"ray", "mlflow", "pydantic", "yaml", "pandas"}
ROOMS = {
    "pipelines": [
        {"__main__"},
        {"commands"},
        {"estimates"},
        {"sweeps"},
        {"workflow"},
        {"reports", "training"},
        {"curation"},
        {"doctor", "evaluation", "shards", "ingest"},
        {"checkpoints", "corpus", "tracking", "compute"},
        {"config"},
    ],
    "vlp": [
        {"serving"},
        {"export"},
        {"contracts", "model"},
        {"checkpoint"},
        {"imports"},
        {"run"},
        {"pictures", "training"},
        {"weights", "evaluation"},
        {"objectives"},
        {"data", "losses", "targets", "tiny_world"},
        {"encoders", "shards", "tokenizers"},
        {"layouts", "masking", "metrics", "text_masking"},
        {"core"},
    ],
}
"""The rooms of each package, from the top; a room imports only rooms of lower rows."""

Graph = Mapping[str, set[str]]
"""Module -> the modules of the project that it imports, wherever in it."""


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(root: Path) -> dict[str, Path]:
    """Every module of the packages below a folder."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    names = {".".join(file.relative_to(root).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def graph(root: Path) -> Graph:
    """Who imports whom; a name of a module counts as that module, not as its package."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for module, file in known.items():
        names = imported(file)
        owners = (name if name in known else name.rpartition(".")[0] for name in names)
        found[module] = {owner for owner in owners if owner in known and owner != module}
    return found


def upward(imports: Graph) -> set[str]:
    """Imports of a room by one that is not above it, and of `pipelines` by `vlp`."""
    return {
        f"{importer} imports {module}"
        for importer, others in imports.items()
        for module in others
        if _is_upward(importer.split("."), module.split("."))
    }


def _is_upward(importer: list[str], module: list[str]) -> bool:
    if importer[0] != module[0]:
        return importer[0] == "vlp"
    if len(importer) == 1 or len(module) == 1 or importer[1] == module[1]:
        return False
    return _row(*importer[:2]) >= _row(*module[:2])


def _row(package: str, room: str) -> int:
    (row,) = [row for row, rooms in enumerate(ROOMS[package]) if room in rooms]
    return row


def circular(imports: Graph) -> set[str]:
    """The modules that import themselves by way of others."""
    return {module for module in imports if module in _reached(imports, module)}


def _reached(imports: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = imports[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


IMPORTS = graph(REPOSITORY)


def importers(files: Iterable[Path], *prefixes: str) -> set[str]:
    """Which of the files import a module, or anything beneath it."""
    return {
        f"{file.relative_to(REPOSITORY)} imports {name}"
        for file in files
        for name in imported(file)
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)
    }


def files_of(package: str) -> list[Path]:
    return [file for name, file in modules(REPOSITORY).items() if name.split(".")[0] == package]


def test_a_room_imports_only_rooms_below_it() -> None:
    assert not upward(IMPORTS)


def test_no_import_is_part_of_a_circle() -> None:
    assert not circular(IMPORTS)


def test_every_room_has_its_place_and_every_place_its_room() -> None:
    for package, rows in ROOMS.items():
        rooms = {name.split(".")[1] for name in IMPORTS if name.startswith(f"{package}.")}
        assert rooms == set().union(*rows)


@pytest.mark.parametrize(
    ("file", "line", "is_upward", "is_circle"),
    [
        ("pipelines/checkpoints/a.py", "from pipelines.training import b", True, False),
        ("pipelines/training/b.py", "def f():\n    from pipelines.checkpoints import a", False, False),
        ("pipelines/ingest/a.py", "from pipelines.shards.b import c", True, False),
        ("vlp/training/a.py", "from pipelines.config import b", True, False),
        ("pipelines/config/b.py", "from pipelines.config.a import c", False, True),
    ],
)
def test_an_import_that_breaks_the_rules_is_found(
    tmp_path: Path, file: str, line: str, is_upward: bool, is_circle: bool
) -> None:
    for name in ("checkpoints/a", "training/b", "shards/b", "config/b"):
        path = tmp_path / f"pipelines/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "pipelines/config/a.py").write_text("import pipelines.config.b\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    found = graph(tmp_path)
    assert bool(upward(found)) == is_upward
    assert bool(circular(found)) == is_circle


def test_the_rules_find_an_import_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import os\ndef f():\n    from ray.train import report\n    import yaml as y\n")
    assert set(imported(file)) == {"os", "ray.train.report", "yaml"}


def test_vlp_is_plain_pytorch() -> None:
    assert not importers(files_of("vlp"), *FOREIGN, "pipelines", "tests")


def test_importing_all_of_vlp_loads_neither_ray_nor_mlflow() -> None:
    names = [name for name in IMPORTS if name.split(".")[0] == "vlp"]
    script = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({{"ray", "mlflow", "pipelines"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_vlp_reads_no_environment_variable() -> None:
    readers = {
        str(file.relative_to(REPOSITORY))
        for file in files_of("vlp")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
        or (isinstance(node, ast.Name) and node.id in {"environ", "getenv"})
    }
    assert not readers


def test_only_one_file_imports_mlflow() -> None:
    files = {entry.split()[0] for entry in importers(files_of("pipelines"), "mlflow")}
    assert files == {"pipelines/tracking/store.py"}


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first to the last, docstring excluded."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def test_functions_have_at_most_50_lines() -> None:
    lengths = {
        f"{file.relative_to(REPOSITORY)}:{function.name}": length(function)
        for package in PACKAGES
        for file in files_of(package)
        for function in functions(file)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > 50}
