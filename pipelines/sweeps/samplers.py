"""What a setting is drawn from: `mask.anchor_ratio: {loguniform: [0.02, 0.4]}` in a sweep's `space`, and
`mask.alpha_power: {choice: [1, 3], when: {mask.feature: mix}}` for one that others decide about."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from random import Random
from typing import Any, ClassVar

from pipelines.config.errors import nearest
from vlp.core.config import naming
from vlp.core.registry import Registry

SAMPLERS = Registry()
WHEN = "when"
"""Beside a sampler: what other settings have to be."""
BELOW_1 = math.nextafter(1.0, 0.0)
Place = float
"""Where in a sampler a value lies: its number in a list, or the share of a range that is below it."""


class Sampler(ABC):
    """What one setting may be; the fields of a sampler are its arguments, in the order of the file."""

    name: ClassVar[str]

    @classmethod
    def of(cls, arguments: Any) -> "Sampler":
        """Read the arguments; a ValueError, of one line, where they are not what it takes."""
        names = [one.name for one in fields(cls)]  # pyright: ignore[reportArgumentType]
        if not isinstance(arguments, list) or len(arguments) != len(names):
            raise ValueError(f"{cls.name} takes {len(names)} numbers, [{', '.join(names)}]; got {arguments}")
        return cls(*map(_number, arguments))

    @abstractmethod
    def at(self, place: Place) -> Any:
        """The value at a place; of a range, the places are [0, 1)."""

    @abstractmethod
    def scaled(self, place: Place, factor: float) -> Place:
        """The place of a number times a factor, within the range; in a list one further, or one back where
        the factor is below 1."""

    @property
    @abstractmethod
    def corners(self) -> tuple[Any, ...]:
        """The values furthest out; all of a list."""

    @property
    def num_values(self) -> int | None:
        """How many values a list has; None for a range."""
        return None


@dataclass(frozen=True)
class _List(Sampler):
    values: tuple[Any, ...]

    @classmethod
    def of(cls, arguments: Any) -> Sampler:
        if not isinstance(arguments, list) or not arguments:
            raise ValueError(f"{cls.name} takes a list of one value or more; got {arguments}")
        for value in arguments:
            if isinstance(value, str) and _is_number(value):
                raise ValueError(_said_as_text(value))
            if arguments.count(value) > 1:
                raise ValueError(f"{cls.name} has {value} twice")
        return cls(tuple(arguments))

    def at(self, place: Place) -> Any:
        return self.values[int(place)]

    def scaled(self, place: Place, factor: float) -> Place:
        return min(max(int(place) + (1 if factor > 1 else -1), 0), len(self.values) - 1)

    @property
    def corners(self) -> tuple[Any, ...]:
        return self.values

    @property
    def num_values(self) -> int:
        return len(self.values)


@SAMPLERS.register
class Choice(_List):
    """One of a list, each as likely."""

    name = "choice"


@SAMPLERS.register
class Grid(_List):
    """Every one of a list; only a search of grids has it."""

    name = "grid"


@dataclass(frozen=True)
class _Range(Sampler):
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"{self.name} goes from low to high, got [{self.low:g}, {self.high:g}]")

    def scaled(self, place: Place, factor: float) -> Place:
        number = min(max(self.at(place) * factor, self.low), self.high)
        return min(max(self._place(number), 0.0), BELOW_1)

    @abstractmethod
    def _place(self, number: float) -> Place:
        """The place of a number."""

    @property
    def corners(self) -> tuple[Any, ...]:
        return (self.at(0.0), self.at(BELOW_1))


@SAMPLERS.register
class Uniform(_Range):
    """Any number in [low, high), each as likely."""

    name = "uniform"

    def at(self, place: Place) -> float:
        return self.low + place * (self.high - self.low)

    def _place(self, number: float) -> Place:
        return (number - self.low) / (self.high - self.low)


@SAMPLERS.register
class LogUniform(_Range):
    """Any number in [low, high), each order of magnitude as likely; low is above 0."""

    name = "loguniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"loguniform begins above 0, got {self.low:g}")

    def at(self, place: Place) -> float:
        return self.low * (self.high / self.low) ** place

    def _place(self, number: float) -> Place:
        return math.log(number / self.low) / math.log(self.high / self.low)


@SAMPLERS.register
@dataclass(frozen=True)
class QUniform(_Range):
    """Any multiple of `step` from low to high, each as likely."""

    name = "quniform"
    step: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step <= 0 or self._first > self._last:
            raise ValueError(
                f"quniform has no multiple of {self.step:g} in [{self.low:g}, {self.high:g}]; set the third "
                "number to a step above 0 that fits in it"
            )

    @property
    def _first(self) -> int:
        return math.ceil(self.low / self.step - 1e-9)

    @property
    def _last(self) -> int:
        return math.floor(self.high / self.step + 1e-9)

    def at(self, place: Place) -> float:
        number = self._first + int(place * (self._last - self._first + 1))
        return float(f"{number * self.step:.12g}")  # 0.3, and not 0.30000000000000004

    def _place(self, number: float) -> Place:
        return (round(number / self.step) - self._first + 0.5) / (self._last - self._first + 1)


@SAMPLERS.register
class RandInt(_Range):
    """Any whole number from low to high - 1, each as likely."""

    name = "randint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if int(self.low) != self.low or int(self.high) != self.high:
            raise ValueError(f"randint takes whole numbers, got [{self.low:g}, {self.high:g}]")

    def at(self, place: Place) -> int:
        return int(self.low) + int(place * (self.high - self.low))

    def _place(self, number: float) -> Place:
        return (round(number) - self.low + 0.5) / (self.high - self.low)


@dataclass(frozen=True)
class Space:
    """Everything that a sweep searches."""

    samplers: Mapping[str, Sampler]
    """By dotted key."""
    conditions: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    """Key -> key above it -> the values with which the first one is searched."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Space":
        """Read `space`; a ValueError that names the key where there is a mistake."""
        if not given:
            raise ValueError("space is empty; name a setting, such as mask.mask_ratio: {uniform: [0.2, 0.8]}")
        samplers: dict[str, Sampler] = {}
        conditions = {}
        for key, choice in given.items():
            with naming(f"space.{key}: "):
                if isinstance(choice, Mapping) and WHEN in choice:
                    conditions[key] = _condition(choice[WHEN], samplers)
                    choice = {name: arguments for name, arguments in choice.items() if name != WHEN}
                samplers[key] = _sampler(choice)
        return cls(samplers, conditions)

    def values(self, point: Mapping[str, Place]) -> dict[str, Any]:
        """The settings at a point."""
        return {key: sampler.at(point[key]) for key, sampler in self.samplers.items() if key in point}

    def draw(self, generator: Random) -> dict[str, Place]:
        """A place for every setting, also for those whose conditions are not met."""
        return {key: generator.random() * (sampler.num_values or 1) for key, sampler in self.samplers.items()}

    def active(self, point: Mapping[str, Place]) -> dict[str, Place]:
        """A point without the settings whose conditions are not met."""
        kept: dict[str, Place] = {}
        for key in self.samplers:
            if self.is_active(key, kept):
                kept[key] = point[key]
        return kept

    def is_active(self, key: str, point: Mapping[str, Place]) -> bool:
        """Whether a setting's conditions are met by those above it, which are known."""
        return self._is_met(key, self.values(point))

    @cached_property
    def num_points(self) -> int | None:
        """How many points there are; None where a range has any number of them."""
        has_range = any(sampler.num_values is None for sampler in self.samplers.values())
        return None if has_range else len(self.grid)

    @cached_property
    def grid(self) -> list[dict[str, Place]]:
        """All points of a space of lists, the last key changing fastest."""
        places = {key: range(sampler.num_values or 0) for key, sampler in self.samplers.items()}
        return list(self._combined(places, lambda key, place: self.samplers[key].at(place)))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Settings furthest out, in every combination."""
        furthest = {key: sampler.corners for key, sampler in self.samplers.items()}
        yield from self._combined(furthest, lambda key, value: value)

    def _combined(
        self, options: Mapping[str, Sequence[Any]], value: Callable[[str, Any], Any]
    ) -> Iterator[dict[str, Any]]:
        """One option of each setting, in every combination, but for settings whose conditions are not met."""
        combined: Iterator[dict[str, Any]] = iter([{}])
        for key in self.samplers:
            combined = self._extended(combined, key, options[key], value)
        return combined

    def _extended(
        self,
        combined: Iterator[dict[str, Any]],
        key: str,
        options: Sequence[Any],
        value: Callable[[str, Any], Any],
    ) -> Iterator[dict[str, Any]]:
        for chosen in combined:
            if self._is_met(key, {name: value(name, option) for name, option in chosen.items()}):
                yield from (chosen | {key: option} for option in options)
            else:
                yield chosen

    def _is_met(self, key: str, values: Mapping[str, Any]) -> bool:
        conditions = self.conditions.get(key, {})
        return all(_value_of(other, values) in allowed for other, allowed in conditions.items())


def value_text(value: Any) -> str:
    """A value as in an override, numbers rounded."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _condition(given: Any, above: Mapping[str, Sampler]) -> dict[str, list[Any]]:
    """Read what other settings have to be; a list is any of its values."""
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"when takes other keys of space with values, {{key: value}}; got {given}")
    conditions = {}
    for key, value in given.items():
        allowed = value if isinstance(value, list) else [value]
        owner = _owner(key, above)
        if owner is None:
            raise ValueError(f"when: {key} is not among the keys of space above it{nearest(key, above)}")
        if above[owner].num_values is None:
            raise ValueError(f"when: {key} is drawn from a range; a condition takes one of a list of values")
        found = [_value_of(key, {owner: other}) for other in above[owner].corners]
        for one in allowed:
            if one not in found:
                raise ValueError(f"when: {key} is never {one}{nearest(str(one), map(str, found))}")
        conditions[key] = allowed
    return conditions


def _owner(key: str, keys: Iterable[str]) -> str | None:
    """The key itself, or the nearest above it, that is among others."""
    return max((other for other in keys if f"{key}.".startswith(f"{other}.")), key=len, default=None)


def _value_of(key: str, values: Mapping[str, Any]) -> Any:
    """A setting, which may be part of a component that is given whole; None where it is not there."""
    owner = _owner(key, values)
    if owner is None:
        return None
    value = values[owner]
    for part in key.removeprefix(owner).split(".")[1:]:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _sampler(choice: Any) -> Sampler:
    if not isinstance(choice, Mapping) or len(choice) != 1:
        raise ValueError(f"takes one sampler, such as {{uniform: [0.2, 0.8]}}; got {choice}")
    ((name, arguments),) = choice.items()
    if name not in SAMPLERS:
        raise ValueError(f"{name!r} is not a sampler{nearest(str(name), SAMPLERS)}")
    return SAMPLERS[name].of(arguments)


def _number(value: Any) -> float:
    if isinstance(value, str) and _is_number(value):
        raise ValueError(_said_as_text(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"takes numbers, got {value!r}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _said_as_text(value: str) -> str:
    mantissa, letter, exponent = value.lower().partition("e")
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    number = f"{point}{letter}{exponent if exponent[:1] in '+-' else f'+{exponent}'}" if letter else value
    return f"{value!r} is text in YAML; write the number as {number}"
