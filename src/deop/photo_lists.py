"""Lists of photos with masks, as models take them: checks, and how errors name one of the photos. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deop.errors import SettingError


def check_photos(photos: Any, masks: Any) -> list[Any]:
    """Check the arguments of ``encode``.

    Returns:
        Masks, or None, for each photo.

    Raises:
        SettingError: a single photo instead of a list, or another number of masks than of photos.
    """
    if isinstance(photos, (str, bytes)) or not isinstance(photos, Sequence):
        shown = repr(str(photos)[:80]) if isinstance(photos, (str, Path, bytes)) else f"a {type(photos).__name__}"
        raise SettingError(f"encode takes a list of photos, not {shown}: give [photo]")
    given = masks_of_each(masks, len(photos))
    if len(given) != len(photos):
        raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos: give one set for each photo")
    return given


def masks_of_each(masks: Any, count: int) -> list[Any]:
    """The masks of each photo of a list, None for those without.

    Raises:
        SettingError: not a list.
    """
    if masks is None:
        return [None] * count
    if isinstance(masks, str | bytes | Mapping) or not isinstance(masks, Iterable):
        raise SettingError(f"masks must be a list, with the masks of each photo or None, not a {type(masks).__name__}")
    return list(masks)


def describe_photo(photos: list[Any], number: int) -> str:
    """A photo in an error message: its path, or its place in the list, with its size if that is known."""
    photo = photos[number]
    if isinstance(photo, (str, Path)):
        return str(photo)
    place = "the photo" if len(photos) == 1 else f"photo {number + 1} of {len(photos)}"
    if isinstance(photo, np.ndarray) and photo.ndim > 1:
        return f"{place} ({photo.shape[1]} x {photo.shape[0]} px)"
    return place
