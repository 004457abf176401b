"""Masks as images: the id that a file stores for every pixel.

Image libraries read images for viewing: they scale grey values of 1, 2 and 4 bits to 8, and cut colours of 16 bits. For
masks the stored numbers matter, so these files are read differently, or refused.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from deop.errors import ImageError
from deop.files import check_regular
from deop.images.reading import MAX_BYTES, MAX_PIXELS, PROGRAMS, no_pixel_limit, open_image, transposition_of

MAX_ID = 65535
"""Greatest id in a mask: masks have at most 16 bits."""

UNLISTED_COLOUR = -1
"""The id of pixels whose colour is not in the table of colours."""

Colours = Mapping[int, tuple[int, int, int]]
"""For ids their colours in the masks, RGB of 0..255."""

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF
_GREY, _PALETTE = 0, 3  # PNG's colour types


def read_id_map(source: str | Path | bytes, colours: Colours | None = None, *, name: str = "") -> np.ndarray:
    """Read the id of every pixel from an image file.

    Grey images hold the ids as stored, whatever their number of bits: 1, 2, 4, 8 or 16. Of palette images the indices
    are the ids. RGB images whose channels agree in every pixel are read like grey images. Pixels that are fully
    transparent have id 0.

    With a table of colours, an image in colour, or with a palette, is read by its colours if the table lists all of
    them; black is id 0 unless a class has black, or id 0 another colour. An RGB image that is not grey is read through
    the table in any case.

    Args:
        source: a PNG, TIFF, BMP or GIF file, or its bytes.
        colours: the table of colours; None: there is none.
        name: what error messages call the mask; "": its path.

    Returns:
        (H, W) uint8 or uint16; int32 if it was read by its colours, with ``UNLISTED_COLOUR`` for those that are not
        in the table.

    Raises:
        ImageError: a file that cannot be read, or that does not store ids.
    """
    name = name or ("from bytes" if isinstance(source, bytes) else str(source))
    try:
        if not isinstance(source, bytes):
            check_regular(Path(source), largest=MAX_BYTES)
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        with no_pixel_limit():
            image = open_image(BytesIO(data))
        with image:
            return _read(image, data, name, colours or {})
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(f"cannot read the mask {name}: no such file") from None
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        reason = f"cannot identify image file {name!r}" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(f"cannot read the mask {name}: {reason or type(error).__name__}") from error


def _read(image: Image.Image, data: bytes, name: str, colours: Colours) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"the mask {name} is {image.width} x {image.height}, more than {MAX_PIXELS:,} pixels: cut it into smaller "
            "ones"
        )
    if image.format in PROGRAMS:
        raise ImageError(f"the mask {name} is an {image.format} file: save masks as PNG")
    if image.format in _LOSSY:
        raise ImageError(f"the mask {name} is a {image.format} file, whose compression changes ids: save masks as PNG")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"the mask {name} has {frames} pages: save each as a file of its own")
    bits = _stored_bits(image, data, name)
    image.load()
    transposition = transposition_of(image)  # after load(), which removes the tag if Pillow applies it
    if transposition is not None:
        image = image.transpose(transposition)
    if image.mode == "P":
        return _by_palette(image, colours)
    if image.mode in ("RGB", "RGBA", "LA", "PA", "La", "RGBa", "RGBX"):
        return _by_colour(image, name, colours)
    if image.mode == "1" or image.mode == "L" or image.mode.startswith("I"):
        return _as_ids(np.asarray(image), name, bits)
    raise ImageError(f"the mask {name} has mode {image.mode}: expected an id per pixel, in a grey or palette PNG")


def _stored_bits(image: Image.Image, data: bytes, name: str) -> int:
    """The number of bits of a grey value in the file: those below 8 are scaled by Pillow.

    Raises:
        ImageError: a file that Pillow cannot read without changing ids.
    """
    if image.format == "PNG":
        bits, kind = data[24], data[25]  # after signature, length, "IHDR", width and height
        if bits == 16 and kind != _GREY:
            raise ImageError(f"the mask {name} has 16 bits per channel and several channels: save it as grey PNG")
        return bits if kind == _GREY else 8
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        samples = tuple(tags.get(_BITS_PER_SAMPLE, (1,)))
        if len(samples) > 1 and max(samples) > 8:
            raise ImageError(f"the mask {name} has {max(samples)} bits per channel and several channels: save it grey")
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and samples[0] > 1:
            raise ImageError(f"the mask {name} is stored inverted (WhiteIsZero): save it as PNG")
        return int(samples[0])
    return 8


def _as_ids(values: np.ndarray, name: str, bits: int) -> np.ndarray:
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype == np.uint8:
        # Pillow multiplies by 255 / (2^bits - 1).
        return values // np.uint8(255 // ((1 << bits) - 1)) if bits in (2, 4) else np.array(values)
    if values.size and not 0 <= values.min() <= values.max() <= MAX_ID:
        raise ImageError(f"the mask {name} has ids from {values.min()} to {values.max()}: expected 0 to {MAX_ID}")
    return values.astype(np.uint16)


def _by_palette(image: Image.Image, colours: Colours) -> np.ndarray:
    indices = np.array(image)
    if colours:
        rgb = np.asarray(image.convert("RGB"))
        ids = _look_up(rgb, colours)
        if (ids != UNLISTED_COLOUR).all():
            return ids
    return indices


def _by_colour(image: Image.Image, name: str, colours: Colours) -> np.ndarray:
    opaque: np.ndarray | bool = True
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        alpha = np.asarray(image.getchannel(image.getbands()[-1]))
        if not np.isin(alpha, (0, 255)).all():
            raise ImageError(f"the mask {name} has half-transparent pixels: save it without transparency")
        opaque = alpha == 255
    if image.mode in ("LA", "La"):
        return np.where(opaque, np.asarray(image.getchannel(0)), 0).astype(np.uint8)
    if image.mode == "PA" and not colours:
        return np.where(opaque, np.asarray(image.getchannel(0)), 0).astype(np.uint8)
    rgb = np.asarray(image.convert("RGB")) * np.broadcast_to(opaque, image.size[::-1])[..., None].astype(np.uint8)
    ids = _look_up(rgb, colours) if colours else None
    if ids is not None and (ids != UNLISTED_COLOUR).all():
        return ids
    if (rgb == rgb[..., :1]).all():
        return np.array(rgb[..., 0])
    if ids is None:
        raise ImageError(
            f"the mask {name} is in colour (mode {image.mode}): save it as a grey or palette PNG with an id per pixel. "
            "In a data set, classes.json may list the colors instead, as in "
            '{"id": 1, "name": "person", "color": "#dc143c"}'
        )
    return ids


def _look_up(rgb: np.ndarray, colours: Colours) -> np.ndarray:
    """The ids of colours, (H, W) int32."""
    weights = np.array([65536, 256, 1])
    table = ({} if 0 in colours else {0: 0}) | {
        int(np.dot(colour, weights)): label for label, colour in colours.items()
    }
    codes = np.array(sorted(table))
    ids = np.array([table[code] for code in codes.tolist()], np.int32)
    pixels = rgb.astype(np.int32) @ weights.astype(np.int32)
    positions = np.searchsorted(codes, pixels).clip(max=len(codes) - 1)
    return np.where(codes[positions] == pixels, ids[positions], UNLISTED_COLOUR).astype(np.int32)
