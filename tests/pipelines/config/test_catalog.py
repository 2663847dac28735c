"""Every setting is described, and every bound that a config class states is kept."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.commands.schemas import COMMANDS, all_settings
from pipelines.config.catalog import Entry, all_keys, entries, find
from pipelines.config.machine import MachineConfig
from pipelines.config.schema import configs_of, hint_below, members_of
from vlp.core.config import Above, AtLeast, Bound, Within, annotations_of, bounds_of
from vlp.masking import STRATEGIES
from vlp.run import RunConfig


def reachable(configs: Iterable[Any]) -> dict[Any, None]:
    """Every config class that settings of some classes may hold, however deep."""
    found: dict[Any, None] = {}
    todo = list(configs)
    while todo:
        config = todo.pop()
        if config not in found:
            found[config] = None
            todo += [below for hint in annotations_of(config).values() for below in below_of(hint)]
    return found


def below_of(hint: Any) -> Iterator[Any]:
    yield from configs_of(hint)
    if not any(configs_of(member) for member in members_of(hint)):
        element = hint_below(hint, 0)
        yield from configs_of(element)


CONFIGS = list(reachable([RunConfig, *COMMANDS.values()]))
KEYS = list(dict.fromkeys(all_keys(all_settings())))


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_classes_of_all_rooms_are_reached() -> None:
    names = {config.__name__ for config in CONFIGS}
    assert {"MixedShards", "Schedule", "FailureRates", "ShardCache", "TinyWorldConfig", "InfoNCE"} <= names
    assert {strategy for strategy in STRATEGIES.values()} <= set(CONFIGS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_setting_has_a_docstring(config: Any) -> None:
    undescribed = [entry.key for entry in entries(config) if not entry.text]
    assert undescribed == []
    assert config.__doc__
    assert not config.__doc__.startswith(f"{config.__name__}(")


BOUNDED = [
    (config, name, bound)
    for config in CONFIGS
    for name in bounds_of(config)
    for bound in bounds_of(config)[name]
]


def out_of(bound: Bound) -> float:
    match bound:
        case AtLeast(least):
            return least - 1
        case Above(number):
            return number
        case Within(low):
            return low - 1
    raise AssertionError(bound)


@pytest.mark.parametrize(("config", "name", "bound"), BOUNDED, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_bound_is_kept_by_configs_that_are_made_in_python(config: Any, name: str, bound: Bound) -> None:
    """Also where a class has a `__post_init__` of its own; settings without a default are left out."""
    instance, value = object.__new__(config), out_of(bound)
    for field in dataclasses.fields(config):
        has_default = field.default is not dataclasses.MISSING
        object.__setattr__(instance, field.name, field.default if has_default else None)
    is_list = isinstance(getattr(instance, name), tuple)
    object.__setattr__(instance, name, (value,) if is_list else value)
    got = re.escape(str([value] if is_list else value))
    with pytest.raises(ValueError, match=rf"^{name} must .*, got {got}$"):
        instance.__post_init__()


@pytest.mark.parametrize("key", KEYS)
def test_what_is_said_of_a_key_is_complete(key: str) -> None:
    text = shown(key)
    words = " ".join(text.split())
    for entry in find(key, all_settings()):
        assert f"{entry.key}: {entry.kind}" in text
        assert " ".join(entry.text.split()) in words
        for below in [] if entry.choices else everything_below(entry):
            assert f"\n{below.key}: {below.kind}" in text
            assert " ".join(below.text.split()) in words
        for name, config in entry.choices.items():
            assert f"- {name}: {str(config.__doc__).partition(chr(10))[0]}" in words


def everything_below(entry: Entry) -> Iterator[Entry]:
    for below in entry.below():
        yield below
        if not below.choices:
            yield from everything_below(below)


def test_type_bounds_and_default_stand_beside_a_key() -> None:
    assert shown("mask.cluster").splitlines()[2] == "mask.anchor_ratio: number, in (0, 1) = 0.03"
    assert "machine.checkpoints.keep: whole number, at least 1 = 2\n" in shown("machine.checkpoints")
    assert shown("download.timeout").startswith("download.timeout: number, above 0 = 10.0\n    Seconds ")
    assert "training.length: settings = {steps: 10000}\n" in shown("training")
    assert "evaluate.checkpoint: path, required\n" in shown("evaluate")
    assert "download.max_aspect_ratio: number = .inf\n" in shown("download")


def test_a_setting_of_a_component_is_found_by_the_key_of_an_override_too() -> None:
    assert shown("mask.measure") in shown("mask.cluster")
    several = shown("mask.mask_ratio")
    assert several.count("mask.mask_ratio: ") == sum(
        "mask_ratio" in annotations_of(s) for s in STRATEGIES.values()
    )


def test_without_a_key_those_at_the_top_are_listed() -> None:
    listed = [line.split()[0] for line in shown().splitlines()]
    assert listed == [*annotations_of(RunConfig), *COMMANDS]
    assert all(len(line.split()) > 2 for line in shown().splitlines())


@pytest.mark.parametrize(
    ("key", "nearest"),
    {
        "mask.clustr": "did you mean mask.cluster?",
        "machine.checkpoint.keep": "did you mean machine.checkpoints.keep?",
        "downlod.timeout": "did you mean download.timeout?",
        "training.steps": "did you mean training.length.steps?",
        "qqqqqqqq": "`vlp settings` lists",
    }.items(),
)
def test_a_misspelt_key_is_answered_with_the_nearest(key: str, nearest: str) -> None:
    result = CliRunner().invoke(main, ["settings", key])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"vlp: {key} is not a setting; {nearest}")
    assert result.stderr.count("\n") == 1


def test_a_default_is_the_one_that_a_config_has() -> None:
    machine = MachineConfig()
    for entry in entries(MachineConfig):
        if entry.default in ("null", "true", "false") or entry.default.isdecimal():
            expected = {"null": None, "true": True, "false": False}
            value = expected[entry.default] if entry.default in expected else int(entry.default)
            assert getattr(machine, entry.key) == value
