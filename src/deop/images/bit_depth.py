"""Photos of 16 bits per value: which value is white, and reading the colours that Pillow cuts to 8 bits.

Cameras, microscopes and scanners store 10, 12 or 14 bits in files of 16. Scaled by 65535, such a photo is nearly black.
"""

import sys
import warnings
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from deop.images.file_types import FileWarning

WHITE = 65535
"""Greatest value of 16 bits."""

_BITS = (8, 10, 12, 14)  # numbers of bits that are assumed if no value needs more
_DARK = 1 << 12  # below it, a picture that is scaled by 65535 has values below 16 of 255
_BITS_PER_SAMPLE, _MIN, _MAX, _SMIN, _SMAX = 258, 280, 281, 340, 341  # TIFF


def to_8_bits(values: np.ndarray, image: Image.Image, name: str) -> np.ndarray:
    """Scale the values of a file to 8 bits.

    White is the maximum that a TIFF file states (SMaxSampleValue, MaxSampleValue or BitsPerSample), or else 65535. If
    all values fit in 14 bits or fewer, white is the greatest value of 8, 10, 12 or 14 bits, and a warning says so.
    Values of an image that was not read from a file are scaled by 65535.

    Args:
        values: (H, W) or (H, W, channels) uint16.
        image: the image that they are from.
        name: what the image is called in a warning.

    Returns:
        Array of the same shape, uint8.
    """
    greatest = int(values.max())
    black, white = _stated_range(image)
    if white is None or not 0 <= black < white or greatest > white:
        black, white = 0, WHITE
        bits = next((bits for bits in _BITS if greatest < 1 << bits), 16)
        if image.format is None:
            warn_if_dark(values, name)
        elif greatest > 0 and bits < 16:
            white = (1 << bits) - 1
            warnings.warn(
                f"{name}: its values have 16 bits but are at most {greatest}: they are read as values of {bits} bits "
                f"({white} is white). If that is wrong, save the photo with 8 bits",
                FileWarning,
                stacklevel=2,
            )
    scaled = (np.clip(values, black, white) - np.float32(black)) * np.float32(255 / (white - black))
    return (scaled + np.float32(0.5)).astype(np.uint8)


def warn_if_dark(values: np.ndarray, name: str) -> None:
    """Warn about 16-bit values that are so small that the picture is nearly black."""
    greatest = int(values.max())
    if 0 < greatest < _DARK:
        warnings.warn(
            f"{name}: its values are at most {greatest} of {WHITE}, so that the picture is nearly black. If they have "
            "12 bits, multiply them by 16",
            FileWarning,
            stacklevel=2,
        )


def has_16_bit_colours(image: Image.Image) -> bool:
    """Whether an image that has not been loaded stores colours of 16 bits, which Pillow cuts to 8."""
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", ()))


def read_dark_colours(image: Image.Image, data: bytes, name: str) -> Image.Image:
    """A loaded image with 16-bit colours; if it is nearly black, read again with all bits.

    Args:
        image: the loaded image, with the upper 8 bits of each value.
        data: the content of its file.
        name: what the image is called in a warning.
    """
    upper = np.asarray(image)
    alpha = image.mode in ("RGBA", "LA")
    colours = upper[..., :-1] if alpha else upper
    _, white = _stated_range(image)
    if not colours.size or (colours.max() >= 1 << 6 and white in (None, WHITE)):
        return image
    lower = _lower_bytes(data)
    if lower is None or lower.shape != upper.shape:
        values = colours.astype(np.uint16) << 8
    else:
        values = (colours.astype(np.uint16) << 8) | (lower[..., :-1] if alpha else lower)
    scaled = to_8_bits(values, image, name)
    result = Image.fromarray(np.concatenate([scaled, upper[..., -1:]], 2) if alpha else scaled)
    result.info, result.format = image.info, image.format
    return result


def _stated_range(image: Image.Image) -> tuple[int, int | None]:
    """The values of black and white that a TIFF file states; white is None if it states none."""
    tags: Any = getattr(image, "tag_v2", None)
    if not tags:
        return 0, None

    def first(*keys: int) -> int | None:
        for key in keys:
            value = tags.get(key)
            values = value if isinstance(value, tuple) else (value,)
            if value is not None and all(float(entry).is_integer() for entry in values):
                return int(max(values) if key in (_MAX, _SMAX) else min(values))
        return None

    bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
    return first(_SMIN, _MIN) or 0, first(_SMAX, _MAX) or ((1 << bits) - 1 if 8 < bits < 16 else None)


def _lower_bytes(data: bytes) -> np.ndarray | None:
    """The lower 8 bits of each value, by reading the file as if its byte order were the other; None if impossible."""
    native = "L" if sys.byteorder == "little" else "B"
    try:
        with Image.open(BytesIO(data)) as image:
            tiles = []
            for tile in image.tile:
                mode, others = _raw_mode(tile), tile[3]
                order = mode[-1].replace("N", native)
                swapped = mode[:-1] + {"L": "B", "B": "L"}[order]
                arguments = (swapped, *others[1:]) if isinstance(others, tuple) else swapped
                tiles.append(tile._replace(args=arguments))
            image.tile = tiles
            return np.array(image)
    except Exception:  # the attributes used here belong to Pillow, and may change
        return None


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""
