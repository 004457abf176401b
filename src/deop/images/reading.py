"""Reading photos: any common form of image becomes 8-bit RGB in upright orientation, or raises a clear error."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deop.errors import ImageError

Photo = str | Path | bytes | Image.Image | np.ndarray
"""Every form in which a photo can be passed."""

MAX_PIXELS = 500_000_000  # 1.5 GB as RGB: accepts large scans, rejects decompression bombs

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
# Files that are often passed by mistake: their first bytes, what they are, and the remedy.
_OTHER_FILES = (
    (b"%pdf", "a PDF: export the page as PNG"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"<!doctype", "a web page: download the image itself"),
    (b"<html", "a web page: download the image itself"),
    (b"#?radiance", "a Radiance HDR image: tone-map it to 8 bits first"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image: tone-map it to 8 bits first"),
    (b"\x93numpy", "a NumPy file: load it with numpy.load and pass the array"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the image with `git lfs pull`"),
    (b"pk\x03\x04", "a zip archive: unpack it first"),
)
# Image.open reads its pixel limit from a global; the lock keeps threads from restoring it for each other.
_limit_lock = threading.Lock()


def read_photo(source: Photo, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photo in any common form as upright 8-bit RGB.

    EXIF orientation is applied. Transparent pixels are composited over white. 16-bit grey values, of files and of
    arrays, are scaled so that 65535 becomes 255. The first frame of an animated file is read; a PIL image is read at
    its current frame. Colour profiles are not applied, because the published vision-language models were trained
    without them.

    Args:
        source: path; bytes of an image file; PIL image of any mode; or array (H, W), (H, W, 1), (H, W, 3) RGB or
            (H, W, 4) RGBA of uint8, uint16, bool, floats in [0, 1], or other integers in 0..255.
        max_pixels: files and PIL images with more pixels are rejected before they are decoded.

    Returns:
        Array (H, W, 3) uint8, RGB. A copy, unless ``source`` is a read-only array of this form that owns its memory.

    Raises:
        ImageError: the source is missing, damaged, not an image, too large, or an array of another form.

    >>> read_photo(np.zeros((2, 3), np.uint8)).shape
    (2, 3, 3)
    """
    name = _describe(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return _from_image(source, name, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), name, max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_bytes(_read_file(Path(source), name), name, max_pixels)
    if type(source).__module__.partition(".")[0] == "torch":
        raise ImageError(
            f"cannot read {name}: the channel order of a tensor is ambiguous; pass an array (H, W, 3), which is "
            "tensor.permute(1, 2, 0).cpu().numpy() for a tensor (3, H, W)"
        )
    if isinstance(source, set | frozenset):
        raise ImageError(f"cannot read {name}: a set has no order; pass several photos as a list")
    raise ImageError(f"cannot read {name}: pass a path, bytes, a PIL image or a NumPy array")


def count_pixels(source: Photo) -> int:
    """The number of pixels of a photo, from the header of its file and without decoding it.

    Args:
        source: as in ``read_photo``.

    Returns:
        H x W; 0 for a source that cannot be opened. ``read_photo`` raises the error that says why.

    >>> count_pixels(np.zeros((2, 3), np.uint8))
    6
    """
    try:
        if isinstance(source, np.ndarray):
            return source.shape[0] * source.shape[1]
        if isinstance(source, Image.Image):
            return source.width * source.height
        file = BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
        with no_pixel_limit(), Image.open(file) as image:
            return image.width * image.height
    except Exception:  # Pillow's plugins raise almost any exception for a damaged header
        return 0


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
    if hasattr(source, "shape"):
        return f"{type(source).__name__} {tuple(source.shape)}"
    return f"a {type(source).__name__}"


def _kilobytes(count: int) -> str:
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.0f} kB"


def _read_file(path: Path, name: str) -> bytes:
    if name.startswith(("http://", "https://")):
        raise ImageError(f"cannot read {name}: it is a web address; download the photo and pass the file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"cannot read {name}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"cannot read {name}: it is a folder; pass the photos in it one by one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read {name}: {reason}; check the path and its permissions") from error


def _from_bytes(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageError(f"cannot read {name}: it is empty (0 bytes); copy or download it again")
    try:
        with no_pixel_limit():
            image = Image.open(BytesIO(data))
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
            "allowed; shrink or tile it, or raise max_pixels if you trust the file"
        )
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged data
        form = image.format or "image"
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = f"truncated {form} ({_present_size(data)})" if truncated else f"damaged {form} ({error})"
        raise ImageError(f"cannot read {name}: {reason}; copy or download it again") from error
    rgb = _to_rgb(image, name)
    # Read the tag after load(): for some formats Pillow applies it while loading, and then removes it.
    transposition = _TRANSPOSITIONS.get(_orientation(image))
    return np.array(rgb if transposition is None else rgb.transpose(transposition))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the image is usable although its EXIF record is damaged
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(_from_array(np.asarray(image), name))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # Pillow opens some 16-bit files as 32-bit integers; the values tell 8 bits from 16.
        wide = image.mode != "I" or int(values.max()) > 255
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"cannot read {name}: its 32-bit values range from {values.min()} to {values.max()}; "
                "scale them to 8 or 16 bits first"
            )
        return Image.fromarray(_from_array(values.astype(np.uint16 if wide else np.uint8), name))
    try:
        if image.mode == "La":  # Pillow converts this mode to RGBA only through LA
            image = image.convert("LA")
        if image.has_transparency_data:
            return _over_white(image.convert("RGBA"))
        return image.convert("RGB")
    except (ValueError, ImportError, OSError) as error:
        raise ImageError(
            f"cannot read {name}: Pillow cannot convert mode {image.mode} to RGB; save the image as RGB"
        ) from error


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.size == 0:
        raise ImageError(f"cannot read {name}: it has no pixels")
    if array.ndim == 4:
        raise ImageError(f"cannot read {name}: it is a batch; pass its photos as a list")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "pass (H, W, 3) or (H, W)"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "its channels come first; pass array.transpose(1, 2, 0)"
        raise ImageError(f"cannot read {name}: {hint}")
    pixels = _to_8_bits(array, name)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return np.array(_over_white(Image.fromarray(np.ascontiguousarray(pixels))))
    flags = pixels.flags
    if not flags.writeable and flags.owndata and flags.c_contiguous:
        return pixels  # cannot change: a photo that has been read before is not copied
    return np.array(pixels, order="C")


def _to_8_bits(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # round(x / 257): 65535 -> 255
    if array.dtype.kind not in "iuf":
        raise ImageError(f"cannot read {name}: pass uint8, uint16 or floats in [0, 1]")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        # NaN fails both comparisons; the margin allows for rounding errors.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            hint = "divide by 255" if 1 < high <= 255 and low >= 0 else "scale them, or tone-map the image"
            raise ImageError(f"cannot read {name}: its floats range from {low:g} to {high:g}, not from 0 to 1; {hint}")
        return (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    if low < 0 or high > 255:
        raise ImageError(
            f"cannot read {name}: its integers range from {low} to {high}; pass uint8 for 0..255, uint16 for 0..65535"
        )
    return array.astype(np.uint8)


def _over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _why_not_an_image(data: bytes) -> str:
    """Why Pillow cannot open a file, and the remedy."""
    start = data[:512].lstrip().lower()
    for prefix, hint in _OTHER_FILES:
        if start.startswith(prefix):
            return f"it is {hint}"
    if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "it is a HEIC image: convert it to JPEG, or `pip install pillow-heif` and register its opener"
    if start.startswith((b"\xff\xd8", b"\x89png", b"riff", b"gif8", b"bm")):
        return f"truncated or damaged image ({_present_size(data)}); copy or download it again"
    return f"Pillow cannot identify its format (it starts with {data[:8]!r}); convert it to JPEG or PNG"


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
