"""Reading photos: any common form of image becomes 8-bit RGB in upright orientation, or raises a clear error."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from deop.errors import ImageError
from deop.files import check_regular
from deop.images.array_photos import is_tensor, over_white, photo_of_array, tensor_layout, tensor_to_array
from deop.images.bit_depth import has_16_bit_colours, read_dark_colours, to_8_bits
from deop.images.file_types import HEAD, file_type, is_url, register_plugins

Photo = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Any
"""Every form in which a photo can be passed; the last are tensors of torch, which is not imported here."""

MAX_PIXELS = 500_000_000  # 1.5 GB as RGB: accepts large scans, rejects decompression bombs

MAX_BYTES = 4_000_000_000  # of a file: more than MAX_PIXELS of 16 bits without compression
PROGRAMS = ("EPS", "WMF", "EMF", "MPEG")
"""Pillow's names of formats that it does not decode itself: with Ghostscript, with Windows, or not at all."""

# EXIF orientation -> the transposition that makes the image upright; 1 is upright already.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
# Pillow warns about damaged EXIF without naming the file, and reads the photo. Where warnings are errors, it would not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")
# Image.open reads its pixel limit from a global; the lock keeps threads from restoring it for each other.
_limit_lock = threading.Lock()


def read_photo(source: Photo, max_pixels: int = MAX_PIXELS, *, allow_urls: bool = True) -> np.ndarray:
    """Read a photo in any common form as upright 8-bit RGB.

    EXIF orientation is applied. Transparent pixels are composited over white. The first frame of an animated file is
    read; a PIL image is read at its current frame. Colour profiles are not applied, because the published
    vision-language models were trained without them.

    Values of 16 bits are scaled so that the greatest one becomes 255: 65535, unless a file states another, or
    contains only values of 14 bits or fewer. The latter is reported by a warning. Arrays are always scaled by 65535.

    Args:
        source: path; https address; bytes of an image file; binary file object, which is read from its start if it can
            be; PIL image of any mode; array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8, uint16, bool,
            floats in [0, 1], or other integers in 0..255; or tensor of torch of these types and shapes, or with the
            channels first.
        max_pixels: files and PIL images with more pixels are rejected before they are decoded.
        allow_urls: False to refuse web addresses, as a server must that passes on what others send.

    Returns:
        Array (H, W, 3) uint8, RGB. A copy, unless ``source`` is a read-only array of this form that owns its memory.

    Raises:
        ImageError: the source is missing, damaged, not an image, too large, or an array of another form.

    >>> read_photo(np.zeros((2, 3), np.uint8)).shape
    (2, 3, 3)
    """
    name = _describe(source)
    if isinstance(source, np.ndarray):
        return photo_of_array(source, name)
    if isinstance(source, Image.Image):
        return _from_image(source, name, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), name, max_pixels)
    if isinstance(source, str) and is_url(source):
        if not allow_urls:
            raise ImageError(f"cannot read {name}: web addresses are not allowed here; pass the file itself")
        from deop.images.download import fetch  # loads the modules of HTTP

        return _from_bytes(fetch(source), name, max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_bytes(_read_file(Path(source), name), name, max_pixels)
    if hasattr(source, "read"):
        return _from_bytes(_read_object(source, name), name, max_pixels)
    if is_tensor(source):
        return photo_of_array(tensor_to_array(source, name), name)
    if isinstance(source, set | frozenset):
        raise ImageError(f"cannot read {name}: a set has no order; pass several photos as a list")
    raise ImageError(
        f"cannot read {name}: pass a path, an https address, bytes, a binary file object, a PIL image, a NumPy array "
        "or a tensor"
    )


def count_pixels(source: Photo) -> int:
    """The number of pixels of a photo, from the header of its file and without decoding it.

    Args:
        source: as in ``read_photo``.

    Returns:
        H x W; 0 for a web address, and for a source that cannot be opened: ``read_photo`` raises the error that says
        why. The position of a file object stays as it was.

    >>> count_pixels(np.zeros((2, 3), np.uint8))
    6
    """
    try:
        if isinstance(source, np.ndarray):
            return source.shape[0] * source.shape[1]
        if isinstance(source, Image.Image):
            return source.width * source.height
        if isinstance(source, bytes | bytearray | memoryview):
            return _pixels_of_file(BytesIO(source))
        if isinstance(source, str | os.PathLike):
            if is_url(source):
                return 0
            check_regular(Path(source))
            return _pixels_of_file(source)
        if hasattr(source, "read"):
            return _pixels_of_object(source)
        tensor: Any = source
        height, width, _ = tensor_layout(tuple(tensor.shape), "")
        return height * width
    except Exception:  # Pillow's plugins raise almost any exception for a damaged header
        return 0


def _pixels_of_file(file: Any) -> int:
    with no_pixel_limit(), open_image(file) as image:
        return image.width * image.height


def _pixels_of_object(file: Any) -> int:
    """The pixels of a photo in a file object, whose position stays as it was."""
    if not file.seekable():
        return 0
    position = file.tell()
    try:
        file.seek(0)
        with no_pixel_limit():
            image = Image.open(file)  # not closed, which would close the file object
        return image.width * image.height
    finally:
        file.seek(position)


def open_image(file: Any) -> Image.Image:
    """``Image.open``; formats that need a plugin, if that is installed, too."""
    try:
        return Image.open(file)
    except Image.UnidentifiedImageError:
        register_plugins()
        return Image.open(file)


@contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Switch off Pillow's own pixel limit: a warning above 89, an error above 179 million pixels."""
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _describe(source: Any) -> str:
    """A name of the source for error messages."""
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        file = getattr(source, "filename", "")
        return str(file) if file else f"{source.mode} image of {source.width} x {source.height} px"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"photo from bytes ({_kilobytes(len(source))})"
    if isinstance(source, str | os.PathLike):
        return str(source)
    if hasattr(source, "read"):
        name = getattr(source, "name", "")
        return f"file object {name}" if isinstance(name, str) and name else f"a file object ({type(source).__name__})"
    if hasattr(source, "shape"):
        return f"{type(source).__name__} {tuple(source.shape)}"
    return f"a {type(source).__name__}"


def _kilobytes(count: int) -> str:
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.0f} kB"


def _read_file(path: Path, name: str) -> bytes:
    if name.startswith(("http:/", "https:/")):
        raise ImageError(f"cannot read {name}: a web address is not a path; pass it as a string")
    try:
        check_regular(path, largest=MAX_BYTES)
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"cannot read {name}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"cannot read {name}: it is a folder; pass the photos in it one by one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "check the path and its permissions"
        if "pipe" in str(error):
            remedy = "pass the bytes, or on the command line `-` for standard input"
        raise ImageError(f"cannot read {name}: {reason}; {remedy}") from error


def _read_object(file: Any, name: str) -> bytes:
    """All bytes of a file object, from its start if it can be moved there."""
    if isinstance(file, TextIOBase):
        raise ImageError(f'cannot read {name}: it is opened as text; open it with mode "rb"')
    try:
        with suppress(OSError, AttributeError):  # a stream, which is read from where it is
            file.seek(0)
        data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read {name}: {reason}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f'cannot read {name}: it returns {type(data).__name__}, not bytes; open it with mode "rb"')
    return bytes(data)


def _from_bytes(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageError(f"cannot read {name}: it is empty (0 bytes); copy or download it again")
    try:
        with no_pixel_limit():
            image = open_image(BytesIO(data))
    except Exception as error:  # Pillow's plugins raise almost any exception for a damaged header
        raise ImageError(f"cannot read {name}: {_why_not_an_image(data)}") from error
    return _from_image(image, name, max_pixels, data)


def _from_image(image: Image.Image, name: str, max_pixels: int, data: bytes = b"") -> np.ndarray:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"cannot read {name}: it has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageError(
            f"cannot read {name}: {width} x {height} px is more than the {max_pixels / 1e6:g} million pixels "
            "allowed in one piece; segment it in tiles (--tiles auto, deop.tiles.segment_tiles), shrink it, or raise "
            "max_pixels if you trust the file"
        )
    if image.format in PROGRAMS:
        raise ImageError(f"cannot read {name}: it is an {image.format} file, not a photo; export it as PNG")
    wide = has_16_bit_colours(image)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        form = image.format or "image"
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = f"truncated {form} ({_present_size(data)})" if truncated else f"damaged {form} ({error})"
        raise ImageError(f"cannot read {name}: {reason}; copy or download it again") from error
    rgb = _to_rgb(read_dark_colours(image, data, name) if wide else image, name)
    transposition = transposition_of(image)
    return np.array(rgb if transposition is None else rgb.transpose(transposition))


def transposition_of(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes an image upright; None if it is, or if its EXIF record is damaged.

    Call it after ``image.load()``: for some formats Pillow applies the orientation while loading, and removes the tag.
    """
    with suppress(Exception):
        return _TRANSPOSITIONS.get(int(image.getexif().get(_ORIENTATION, 1)))
    return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(photo_of_array(np.asarray(image), name))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # Pillow opens some 16-bit files as 32-bit integers; the values tell 8 bits from 16.
        wide = image.mode != "I" or int(values.max()) > 255
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"cannot read {name}: its 32-bit values range from {values.min()} to {values.max()}; "
                "scale them to 8 or 16 bits first"
            )
        pixels = to_8_bits(values.astype(np.uint16), image, name) if wide else values.astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB")
    try:
        if image.mode == "La":  # Pillow converts this mode to RGBA only through LA
            image = image.convert("LA")
        if image.has_transparency_data:
            return over_white(image.convert("RGBA"))
        return image.convert("RGB")
    except (ValueError, ImportError, OSError) as error:
        raise ImageError(
            f"cannot read {name}: Pillow cannot convert mode {image.mode} to RGB; save the image as RGB"
        ) from error


def _why_not_an_image(data: bytes) -> str:
    """Why Pillow cannot open a file, and the remedy."""
    kind = file_type(data[:HEAD])
    if kind.name == "TIFF" and _has_other_bands(data):
        return (
            "a TIFF with bands that photos do not have, such as four of 16 bits; segment it in tiles (--tiles auto, "
            "deop.tiles.segment_tiles), which choose bands and scale values, or convert it to 8 bits"
        )
    if kind.readable:
        return f"truncated or damaged {kind.name} ({_present_size(data)}); copy or download it again"
    if kind.name:
        article = "an" if kind.name.startswith(("A", "SVG", "Open")) else "a"
        return f"it is {article} {kind.name}" + (f": {kind.remedy}" if kind.remedy else "")
    # Text is not repeated: it may be of a file that somebody else linked to.
    is_text = "".join(data[:HEAD].decode("utf-8", "ignore").split()).isprintable()
    start = "it is text" if is_text else f"it starts with {data[:8]!r}"
    return f"Pillow cannot identify its format ({start}); convert it to JPEG or PNG"


def _has_other_bands(data: bytes) -> bool:
    """Whether a TIFF is complete as far as Pillow reads it, but of a kind that Pillow does not know."""
    try:
        TiffImagePlugin.TiffImageFile(BytesIO(data))
    except SyntaxError as error:
        return "pixel mode" in str(error)
    except Exception:  # Pillow's plugins raise almost any exception for a damaged header
        return False
    return False


def _present_size(data: bytes) -> str:
    """The size of a truncated file, and of the complete file where its header contains that."""
    declared = 0
    if data[:4] == b"RIFF" and len(data) >= 8:
        declared = int.from_bytes(data[4:8], "little") + 8
    elif data[:2] == b"BM" and len(data) >= 6:
        declared = int.from_bytes(data[2:6], "little")
    if declared > len(data) > 0:
        return f"{_kilobytes(len(data))} of {_kilobytes(declared)}"
    return f"it ends after {_kilobytes(len(data))}" if data else "it ends too early"
