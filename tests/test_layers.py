"""The dependency rules of the design, and the limits on size, for every file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import REPOSITORY as ROOT

VLP, PIPELINES = (sorted((ROOT / package).rglob("*.py")) for package in ("vlp", "pipelines"))
FOREIGN = {"ray", "mlflow", "pydantic", "yaml", "pandas"}


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(files: list[Path], *prefixes: str) -> set[str]:
    """Which of the files import a module, or anything beneath it."""
    return {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported(file)
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)
    }


def under(folder: str) -> list[Path]:
    files = [file for file in VLP if file.is_relative_to(ROOT / folder)]
    assert files
    return files


def test_the_rules_find_an_import_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import os\ndef f():\n    from ray.train import report\n    import yaml as y\n")
    assert set(imported(file)) == {"os", "ray.train.report", "yaml"}


def test_vlp_is_plain_pytorch() -> None:
    assert not importers(VLP, *FOREIGN, "pipelines", "tests")


def test_importing_all_of_vlp_loads_neither_ray_nor_mlflow() -> None:
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in VLP]
    names = [name.removesuffix(".__init__") for name in modules]
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
        str(file.relative_to(ROOT))
        for file in VLP
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
        or (isinstance(node, ast.Name) and node.id in {"environ", "getenv"})
    }
    assert not readers


def test_only_tracking_imports_mlflow() -> None:
    files = {entry.split()[0] for entry in importers(PIPELINES, "mlflow")}
    assert files == {"pipelines/tracking.py"}


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("vlp/masking", ["vlp.encoders", "vlp.objectives", "vlp.data", "vlp.evaluation", "timm"]),
        (
            "vlp/encoders",
            ["vlp.objectives", "vlp.data", "vlp.evaluation", "vlp.training.optim", "vlp.training.step"],
        ),
        (
            "vlp/objectives",
            ["vlp.data", "vlp.evaluation", "vlp.training.optim", "vlp.training.step", "vlp.pictures"],
        ),
        ("vlp/evaluation", ["vlp.encoders", "vlp.objectives", "vlp.masking", "vlp.training.step"]),
        ("vlp/tokenizers", ["vlp.encoders", "vlp.objectives", "vlp.data"]),
    ],
)
def test_a_folder_knows_nothing_of_those_that_build_on_it(folder: str, banned: list[str]) -> None:
    assert not importers(under(folder), *banned)


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


def test_files_have_at_most_250_lines() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in VLP + PIPELINES}
    assert not {file: lines for file, lines in lengths.items() if lines > 250}


def test_functions_have_at_most_50_lines() -> None:
    lengths = {
        f"{file.relative_to(ROOT)}:{function.name}": length(function)
        for file in VLP + PIPELINES
        for function in functions(file)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > 50}
