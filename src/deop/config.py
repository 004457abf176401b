"""Settings as data classes, from the JSON that travels with weights."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from deop.errors import CheckpointError

T = TypeVar("T")


def from_json(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Build a data class from its entries; ``dataclasses.asdict`` is the way back.

    Args:
        kind: the data class.
        values: its fields by name; fields left out keep their default.
        what: what it sets, for the error.

    Raises:
        CheckpointError: a key that the class does not know, or values that it does not take.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"the settings of {what} are {values!r}: expected a JSON object")
    known = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise CheckpointError(f"unknown settings of {what}: {', '.join(unknown)}")
    for name, value in values.items():
        if not _fits(value, known[name]):
            raise CheckpointError(f"the setting {name!r} of {what} is {value!r}: expected {_TYPES[known[name]]}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the settings of {what} do not fit: {error}") from error


_TYPES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value of JSON is of a field's type; only plain types are looked at."""
    if wanted not in _TYPES:
        return True
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if wanted is float else wanted)
