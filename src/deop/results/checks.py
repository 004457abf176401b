"""Checks of the arguments that several modules take: mode, batch, names and maps."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from deop.arguments import matches
from deop.errors import SettingError
from deop.text.vocabulary import quoted

MODES = ("semantic", "panoptic", "instance")


def check_request(mode: str, batch: int = 1) -> None:
    """Check the options of ``DeOP.segment`` before a photo is read.

    Args:
        mode: one of ``MODES``.
        batch: an integer of at least 1.

    Raises:
        SettingError: an option is not one of these; the message names it.
    """
    if isinstance(batch, bool) or not isinstance(batch, Integral) or batch < 1:
        raise SettingError(f"batch must be an integer of at least 1, not {batch!r}")
    if not isinstance(mode, str) or mode not in MODES:
        raise SettingError(f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")


def as_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check a list of names. A set is rejected: its order, and with it the indices, differ from run to run."""
    if isinstance(names, str | set | frozenset):
        raise SettingError(f"names must be a list of strings, not the {type(names).__name__} {names!r}")
    if not isinstance(names, Iterable):
        raise SettingError(f"names must be a list of strings, not {names!r}")
    names = tuple(names)
    if not all(issubclass(kind, str) for kind in set(map(type, names))):
        raise SettingError(f"names must be strings, not {names!r}")
    return names


def as_map(values: np.ndarray, count: int, label: str) -> np.ndarray:
    """Check a map of indices in [-1, count) and convert it to int32."""
    if not isinstance(values, np.ndarray):
        raise SettingError(f"{label} must be (H, W) integers, not a {type(values).__name__}")
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iu":
        raise SettingError(f"{label} must be (H, W) integers, not {values.shape} {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < -1 or high >= count:
        raise SettingError(f"{label} must lie in [-1, {count}), not from {low} to {high}")
    return np.ascontiguousarray(values, np.int32)


def check_kinds(isthing: Any, count: int) -> Sequence[bool | None]:
    """Whether each of ``count`` names is a thing; None for each if it is not known.

    Raises:
        SettingError: another number of values, or values that are not True, False or None.
    """
    if isthing is None:
        return [None] * count
    kinds = list(isthing)
    if isinstance(isthing, str) or not matches(kinds, tuple[bool | None, ...]) or len(kinds) != count:
        raise SettingError(f"isthing must have True, False or None for each of {count} names, not {quoted(isthing)}")
    return kinds


def check_numbers(values: np.ndarray, shapes: Sequence[tuple[int, ...]], label: str) -> None:
    """Refuse an array of another shape, or of anything but numbers.

    Raises:
        SettingError: naming the array.
    """
    if values.shape not in shapes or values.dtype.kind not in "biuf":
        raise SettingError(
            f"{label} must have numbers in the shape {' or '.join(map(str, shapes))}, not {values.shape} {values.dtype}"
        )


def check_piece(piece: Any, count: int) -> tuple[int, float, bool | None]:
    """What is said about one segment: (class_id, score, isthing).

    Raises:
        SettingError: another form, or an id that is not that of one of the ``count`` names.
    """
    if not matches(piece, tuple[int, float, bool | None]) or not 0 <= piece[0] < count:
        raise SettingError(
            f"{quoted(piece)} does not describe a segment: give (class_id, score, isthing), with the index of one of "
            f"{count} names, a number, and True, False or None"
        )
    return int(piece[0]), float(piece[1]), piece[2]
