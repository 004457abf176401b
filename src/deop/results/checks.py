"""Checks of the arguments that several modules take: mode, batch, names and maps."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from deop.errors import SettingError

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
    names = tuple(names)
    if not all(issubclass(kind, str) for kind in set(map(type, names))):
        raise SettingError(f"names must be strings, not {names!r}")
    return names


def as_map(values: np.ndarray, count: int, label: str) -> np.ndarray:
    """Check a map of indices in [-1, count) and convert it to int32."""
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iu":
        raise SettingError(f"{label} must be (H, W) integers, not {values.shape} {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < -1 or high >= count:
        raise SettingError(f"{label} must lie in [-1, {count}), not from {low} to {high}")
    return np.ascontiguousarray(values, np.int32)
