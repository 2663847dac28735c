"""What a setting is drawn from: `mask.anchor_ratio: {loguniform: [0.02, 0.4]}` in a sweep's `space`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

from pipelines.config.errors import nearest
from vlp.core.config import naming
from vlp.core.registry import Registry

SAMPLERS = Registry()
Place = float
"""Where in a sampler a value lies: its number in a list, or the share of a range that is below it."""


class Sampler(ABC):
    """What one setting may be; the fields of a sampler are its arguments, in the order of the file."""

    name: ClassVar[str]

    @classmethod
    def of(cls, arguments: Any) -> "Sampler":
        """Read the arguments; a ValueError, of one line, where they are not what it takes."""
        names = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
        if not isinstance(arguments, list) or len(arguments) != len(names):
            raise ValueError(f"{cls.name} takes {len(names)} numbers, [{', '.join(names)}]; got {arguments}")
        return cls(*map(_number, arguments))

    @abstractmethod
    def at(self, place: Place) -> Any:
        """The value at a place; of a range, the places are [0, 1)."""

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

    @property
    def corners(self) -> tuple[Any, ...]:
        return (self.at(0.0), self.at(math.nextafter(1.0, 0.0)))


@SAMPLERS.register
class Uniform(_Range):
    """Any number in [low, high), each as likely."""

    name = "uniform"

    def at(self, place: Place) -> float:
        return self.low + place * (self.high - self.low)


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


@dataclass(frozen=True)
class Space:
    """Everything that a sweep searches."""

    samplers: Mapping[str, Sampler]
    """By dotted key."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Space":
        """Read `space`; a ValueError that names the key where there is a mistake."""
        if not given:
            raise ValueError("space is empty; name a setting, such as mask.mask_ratio: {uniform: [0.2, 0.8]}")
        samplers = {}
        for key, choice in given.items():
            with naming(f"space.{key}: "):
                samplers[key] = _sampler(choice)
        return cls(samplers)

    def values(self, point: Mapping[str, Place]) -> dict[str, Any]:
        """The settings at a point."""
        return {key: sampler.at(point[key]) for key, sampler in self.samplers.items()}

    @cached_property
    def num_points(self) -> int | None:
        """How many points there are; None where a range has any number of them."""
        counts = [sampler.num_values for sampler in self.samplers.values()]
        return None if None in counts else math.prod(count for count in counts if count)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Settings furthest out, in every combination."""
        for values in product(*(sampler.corners for sampler in self.samplers.values())):
            yield dict(zip(self.samplers, values, strict=True))


def value_text(value: Any) -> str:
    """A value as in an override, numbers rounded."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


def points_in_order(space: Space, number: int) -> dict[str, Place] | None:
    """A point of a space of lists by its number, the last key changing fastest; None behind the last one."""
    point: dict[str, Place] = {}
    for key, sampler in reversed(list(space.samplers.items())):
        number, point[key] = divmod(number, sampler.num_values or 1)
    return None if number else point
