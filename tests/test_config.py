"""Data classes from JSON: the values that fit a type hint, and errors that name the setting."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from deop.config import describe, fits, from_json
from deop.errors import CheckpointError


@dataclass(frozen=True)
class Inner:
    size: int = 1

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must be 0 or more")


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    scale: float = 1.0
    flag: bool = False
    sizes: tuple[int, ...] = ()
    kind: Literal["x", "y"] = "x"
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


def test_a_data_class_is_read_as_asdict_writes_it():
    outer = Outer("b", 2, True, (1, 2), "y", 3, Inner(4))
    assert from_json(Outer, asdict(outer), "a test") == outer
    assert from_json(Outer, {}, "a test") == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected a JSON object"),
        ({"other": 1}, "unknown settings of a test: other"),
        ({"name": 1}, "'name' of a test is 1: expected a string"),
        ({"scale": "1"}, "'scale' of a test is '1': expected a number"),
        ({"scale": True}, "'scale' of a test is True: expected a number"),
        ({"flag": 1}, "'flag' of a test is 1: expected true or false"),
        ({"sizes": [1, 2.5]}, "expected a list, each a whole number"),
        ({"sizes": 3}, "expected a list, each a whole number"),
        ({"kind": "z"}, "expected x or y"),
        ({"limit": "none"}, "expected a whole number or null"),
        ({"inner": {"size": -1}}, "settings of inner of a test do not fit: size must be 0 or more"),
        ({"inner": {"sise": 1}}, "unknown settings of inner of a test: sise"),
        ({"inner": 3}, "'inner' of a test is 3: expected a JSON object"),
    ],
)
def test_errors_name_the_setting(values, message):
    with pytest.raises(CheckpointError, match=message):
        from_json(Outer, values, "a test")


@pytest.mark.parametrize(
    ("value", "hint", "result"),
    [
        (1, int, True), (1.0, int, False), (True, int, False), (1, float, True), (1, bool, False),
        (None, int | None, True), ((1, "a"), tuple[int, str], True), ((1,), tuple[int, str], False),
        ([], tuple[int, ...], True), (1, Literal[1], True), (True, Literal[1], False), ({}, Mapping[str, Any], True),
        ("a", Any, True),
    ],
)  # fmt: skip
def test_values_fit_their_hints(value, hint, result):
    assert fits(value, hint) is result


def test_hints_are_described_in_words():
    assert describe(str | None) == "a string or null"
    assert describe(Literal["a", "b"]) == "a or b"
