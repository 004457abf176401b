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
    if unknown := sorted(set(values) - {field.name for field in fields(kind)}):  # type: ignore[arg-type]
        raise CheckpointError(f"unknown settings of {what}: {', '.join(unknown)}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the settings of {what} do not fit: {error}") from error
