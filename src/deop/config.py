"""Data classes from the JSON and YAML that people and model folders write, checked against their type hints."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

from deop.errors import CheckpointError

T = TypeVar("T")


def from_json(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Build a data class from a JSON object: the inverse of ``dataclasses.asdict``.

    Args:
        kind: the data class.
        values: field names and their values; a field that is a data class itself takes a JSON object. Fields that are
            omitted keep their default.
        what: what the values describe, for error messages.

    Raises:
        CheckpointError: an unknown field, a value of the wrong type, or one that the class rejects.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"the settings of {what} are {values!r}: expected a JSON object")
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise CheckpointError(f"unknown settings of {what}: {', '.join(unknown)}")
    hints = typing.get_type_hints(kind)
    built = {
        name: from_json(hints[name], value, f"{name} of {what}")
        if is_dataclass(hints[name]) and isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
    for name, value in built.items():
        if not fits(value, hints[name]):
            raise CheckpointError(f"the setting {name!r} of {what} is {value!r}: expected {describe(hints[name])}")
    try:
        return kind(**built)
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the settings of {what} do not fit: {error}") from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON or YAML has the type of a hint.

    A list fits a tuple, and a whole number fits ``float``. ``True`` and ``False`` fit ``bool`` only. A hint of another
    form, such as ``Mapping[str, Any]``, accepts every value.

    >>> fits([1, 2], tuple[float, ...])
    True
    >>> fits(True, int)
    False
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        hints = [inner[0]] * len(value) if inner[-1] is ... else list(inner)
        return len(hints) == len(value) and all(map(fits, value, hints))
    if hint is type(None):
        return value is None
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def describe(hint: Any) -> str:
    """The values that ``fits`` accepts for a hint, in words.

    >>> describe(tuple[int, ...] | None)
    'a list, each a whole number or null'
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", type(None): "null"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple:
        return f"a list, each {describe(inner[0])}"
    if is_dataclass(hint):
        return "a JSON object"
    return " or ".join(map(describe, inner)) if inner else words.get(hint, str(hint))
