"""Every public name says what it is."""

import inspect
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from types import ModuleType

import pipelines
import vlp


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.rpartition(".")[2].startswith(("test_", "__main__")):
            yield import_module(found.name)


def documented(module: ModuleType) -> Iterator[tuple[str, str | None]]:
    """Public functions, classes and methods of a module; a method has the docstring of what it overrides."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            own = thing.__doc__ or ""
            yield f"{module.__name__}.{name}", None if own.startswith(f"{name}(") else own
            for member, value in {} if getattr(thing, "_is_protocol", False) else vars(thing).items():
                methods = property | cached_property | classmethod | staticmethod
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, methods)):
                    yield f"{module.__name__}.{name}.{member}", inspect.getdoc(getattr(thing, member))
        elif inspect.isfunction(thing):
            yield f"{module.__name__}.{name}", inspect.getdoc(thing)


def test_every_public_name_has_a_docstring() -> None:
    found = [
        pair for package in (vlp, pipelines) for module in modules(package) for pair in documented(module)
    ]
    assert len(found) > 1000
    assert [name for name, text in found if not text] == []
