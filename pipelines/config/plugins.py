"""Plug-ins: modules of one's own, imported before settings are read, whose classes are choices like ours."""

import hashlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.config.errors import ConfigError

KEY = "plugins"


def as_keys(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings with their plug-ins as keys, in which form those of several files add up.

    Raises:
        ConfigError: they are no list of names.
    """
    names = values.get(KEY, {})
    if isinstance(names, Mapping):
        return values
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise ConfigError(
            f"{source}: {KEY} must be a list of modules, such as {KEY}=[my_package.masks]; got {names!r}"
        )
    return values | {KEY: dict.fromkeys(names)}


def import_plugins(names: Iterable[str], *, source: str) -> None:
    """Import modules that are installed, on PYTHONPATH or in the current folder.

    Args:
        source: the file that names them, for the message.

    Raises:
        ConfigError: one cannot be imported; says where the fault is.
    """
    for name in names:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)  # the last: nothing that is installed is hidden by a file here
        try:
            import_module(name)
        except Exception as error:
            raise ConfigError(f"{source}: {KEY}: {_why(name, error)}") from error


def _why(name: str, error: Exception) -> str:
    """What is wrong with a module, and the remedy."""
    package = name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return (
            f"there is no module {name}, neither installed nor in {Path.cwd()}; correct the name, install "
            f"{package}, or start vlp in the folder that holds it"
        )
    place = traceback.extract_tb(error.__traceback__)[-1]
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{name} cannot be imported: {reason} ({place.filename}, line {place.lineno}); mend it there"


def with_digests(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by which the same work is told: with the content of each plug-in beside its name.

    Without plug-ins they lack the key, and are those that there were before.
    """
    names = settings.get(KEY)
    rest = {key: value for key, value in settings.items() if key != KEY}
    return rest | {KEY: {name: plugin_digest(name) for name in names}} if names else rest


def plugin_digest(name: str) -> str:
    """SHA-256 of the source file of an imported module; of a package, of all Python files in its folder."""
    module = import_module(name)
    files = [Path(module.__file__)] if module.__file__ else []
    for folder in getattr(module, "__path__", []):
        files += sorted(Path(folder).rglob("*.py"))
    digest = hashlib.sha256()
    for file in dict.fromkeys(files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
