"""Plain values become the settings that they were saved from."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from vlp.core.config import StrictConfig
from vlp.core.plain import from_plain
from vlp.core.registry import ByName, Registry
from vlp.masking.schedule import Schedule
from vlp.shards.storage.address import AnyFolder, open_folder
from vlp.shards.storage.remote import RemoteFolder

SHAPES = Registry()


@dataclass(frozen=True, kw_only=True)
class Shape(StrictConfig):
    name: str


@SHAPES.register
@dataclass(frozen=True, kw_only=True)
class Round(Shape):
    name: Literal["round"] = "round"
    radius: float = 1.0


@SHAPES.register
@dataclass(frozen=True, kw_only=True)
class Square(Shape):
    side: int
    name: Literal["square"] = "square"


@dataclass(frozen=True, kw_only=True)
class Inner:
    low: float
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low > (self.high or math.inf):
            raise ValueError(f"low must be at most high, got {self.low}")


@dataclass(frozen=True, kw_only=True)
class Everything:
    text: str
    count: int = 1
    share: float = 0.5
    is_on: bool = False
    file: Path | None = None
    folder: AnyFolder = open_folder("here")
    choice: Literal["a", "b"] = "a"
    shape: Annotated[Shape, ByName(SHAPES, default="round")] = field(default_factory=Round)
    maybe: Annotated[Shape, ByName(SHAPES)] | None = None
    inner: Inner = Inner(low=0)
    inners: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    numbers: int | tuple[int, ...] = 1
    ratio: float | Schedule | Literal["auto"] | tuple[tuple[float, float], ...] = 0.5
    files: Mapping[str, Path] = field(default_factory=dict)
    shapes: dict[str, Annotated[Shape, ByName(SHAPES)]] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)


CASES = {
    "defaults": {},
    "none": {"file": None, "maybe": None, "inner": Inner(low=-1.0, high=None)},
    "paths": {"file": Path("a b"), "folder": RemoteFolder("s3://bucket/x"), "files": {"x": Path("/y")}},
    "by name": {"shape": Square(side=3), "maybe": Round(radius=2.0), "shapes": {"x": Square(side=1)}},
    "tuples": {"inners": (Inner(low=1.0), Inner(low=2.0, high=3.0)), "pair": (1.0, 2.0), "numbers": (1, 2)},
    "word of a union": {"ratio": "auto"},
    "class of a union": {"ratio": Schedule(start=0.1, end=0.2, shape="step")},
    "table of a union": {"ratio": ((0.0, 0.25), (1.0, 0.5))},
    "numbers": {"count": -3, "share": math.inf, "is_on": True, "numbers": 7, "ratio": 1e-9},
    "anything": {"anything": {"a": [1, {"b": None}]}},
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_saved_as_json_is_read_as_it_was(name: str) -> None:
    config = Everything(text="x", **CASES[name])
    plain = json.loads(json.dumps(asdict(config), default=str))
    assert from_plain(Everything, plain) == config


def test_what_is_not_given_has_its_default() -> None:
    assert from_plain(Everything, {"text": "x", "shape": {"radius": 2}}) == Everything(
        text="x", shape=Round(radius=2.0)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "text is missing"),
        ({"text": "x", "txet": 1}, "txet is not a setting of Everything"),
        ({"text": 3}, "text must be str, got 3"),
        ({"text": "x", "count": 1.5}, "count must be int, got 1.5"),
        ({"text": "x", "count": True}, "count must be int, got True"),
        ({"text": "x", "share": "0.5"}, "share must be float, got '0.5'"),
        ({"text": "x", "choice": "c"}, r"choice must be typing.Literal\['a', 'b'\], got 'c'"),
        ({"text": "x", "inner": {"low": 1, "hgih": 2}}, "inner.hgih is not a setting of Inner"),
        ({"text": "x", "inner": {"low": 1, "high": 0.5}}, "inner.low must be at most high, got 1.0"),
        ({"text": "x", "inner": 3}, "inner must be Inner, got 3"),
        ({"text": "x", "maybe": {"name": "rond"}}, "maybe.name is 'rond'; valid: round, square"),
        ({"text": "x", "shapes": {"a": {"name": "square"}}}, "shapes.a.side is missing"),
        ({"text": "x", "ratio": "autp"}, "ratio must be .*Schedule.*, got 'autp'"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_plain(Everything, values)
