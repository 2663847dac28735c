"""Which masks are looked at: those of runs, or every one that is registered."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pipelines.config.errors import ConfigError, nearest
from pipelines.config.settings import Layers, build, parse_overrides
from vlp.core.config import annotations_of
from vlp.masking import STRATEGIES
from vlp.run import RunConfig

MASK, NAME, SOURCE = "mask.", "mask.name", "command line"
SMALL = {"name": "contrastive", "text_encoder": {"width": 8, "depth": 1, "num_heads": 1}}
"""An objective for masks alone: no mask looks at texts, and the weights for images are drawn first."""


def given_runs(files: Sequence[Layers], overrides: Sequence[str]) -> list[RunConfig]:
    """The runs of some files, and overrides on top; those of masks for the masks that have the setting.

    Raises:
        ConfigError: the first mistake.
    """
    own, others = _split(overrides)
    names = [_name_of(layers, own) for layers in files]
    _check_known(own, names)
    return [
        build(RunConfig, layers.set(others | _fitting(own, name), SOURCE))
        for layers, name in zip(files, names, strict=True)
    ]


def registered_runs(overrides: Sequence[str]) -> list[RunConfig]:
    """A run for every registered mask that hides something, and for each of its variants.

    `mask.name` leaves one mask alone, and another setting of masks is for those that have it.

    Raises:
        ConfigError: there is no such mask, none has a setting, or a value is impossible.
    """
    own, others = _split(overrides)
    base = Layers().add({"name": "masks", "objective": SMALL}, SOURCE)
    build(RunConfig, base.set(others, SOURCE))  # imports plug-ins, whose masks are more
    names = [own[NAME]] if NAME in own else sorted(STRATEGIES)
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(f"{SOURCE}: {NAME}: no mask is called {name}{nearest(str(name), STRATEGIES)}")
    _check_known(own, names)
    runs = []
    for name in names:
        fitting = _fitting(own, name)
        for title, mask in _variants(name, fitting):
            layers = base.add({"name": title, "mask": mask}, SOURCE)
            runs.append(build(RunConfig, layers.set(others | fitting, SOURCE)))
    return [run for run in runs if run.mask.hides_any(run.image_encoder.num_patches)] or runs


def _split(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of masks, and the others."""
    given = parse_overrides(overrides)
    own = {key: value for key, value in given.items() if key.startswith(MASK)}
    return own, {key: value for key, value in given.items() if key not in own}


def _name_of(layers: Layers, own: Mapping[str, Any]) -> str:
    mask = layers.merged(RunConfig).get("mask", {})
    return own.get(NAME, mask.get("name", "none") if isinstance(mask, Mapping) else "none")


def _check_known(own: Mapping[str, Any], names: Sequence[str]) -> None:
    known = {MASK + setting for name in names for setting in _settings_of(name)}
    for key in own:
        if ".".join(key.split(".")[:2]) not in known:
            raise ConfigError(
                f"{SOURCE}: {key} is not a setting of a mask that is shown{nearest(key, known)}"
            )


def _fitting(own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings that a mask has."""
    return {key: value for key, value in own.items() if key.split(".")[1] in _settings_of(name)}


def _settings_of(name: str) -> Mapping[str, Any]:
    """Those of a mask; a name alone where there is none of that name, for which it will be refused."""
    return annotations_of(STRATEGIES[name]) if name in STRATEGIES else {"name": str}


def _variants(name: str, given: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Title and settings of each variant of a mask, but for one that is chosen already."""
    mask = STRATEGIES[name]
    if not mask.variants or MASK + mask.variants in given:
        return [(name, {"name": name})]
    choices = get_args(annotations_of(mask)[mask.variants])
    return [(f"{name}_{choice}", {"name": name, mask.variants: choice}) for choice in choices]
