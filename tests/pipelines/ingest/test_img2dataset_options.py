"""Who comes from img2dataset finds each of its options, or what there is in place of it."""

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.errors import ConfigError
from pipelines.config.settings import Layers, build, to_dict
from pipelines.ingest.settings import DownloadConfig


def options() -> dict[str, Any]:
    """Their defaults, read from the source: the package as a whole takes seconds to import."""
    package: Any = importlib.util.find_spec("img2dataset")
    source = (Path(package.submodule_search_locations[0]) / "main.py").read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    function = next(node for node in functions if node.name == "download")
    names = [argument.arg for argument in function.args.args]
    defaults = [eval(ast.unparse(default)) for default in function.args.defaults]
    return dict(zip(names, [None] * (len(names) - len(defaults)) + defaults, strict=True))


SETTINGS = {field.name for field in dataclasses.fields(DownloadConfig)}


@pytest.mark.parametrize("option", sorted(set(options()) - SETTINGS))
def test_an_option_that_there_is_not_is_answered_by_its_counterpart(option: str) -> None:
    layers = Layers().set({"url_list": "urls.csv", option: "x"}, "command line")
    with pytest.raises(ConfigError, match=f"command line: {option} is not a setting; ") as raised:
        build(DownloadConfig, layers)
    assert DownloadConfig.COUNTERPARTS[option] in str(raised.value)


def test_the_docstring_names_the_defaults_that_differ() -> None:
    ours = to_dict(DownloadConfig(url_list=Path("urls.csv")))
    theirs = {name: default for name, default in options().items() if name in SETTINGS - {"url_list"}}
    differing = {name for name, default in theirs.items() if ours[name] != default}
    named = set(re.findall(r"`(\w+)`", DownloadConfig.__doc__ or "")) & SETTINGS
    assert named == differing
