"""Reading photos: whatever a caller holds becomes 8-bit RGB, upright, or a clear error."""

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

MAX_PIXELS = 500_000_000  # 1.5 GB as RGB: large scans pass, decompression bombs do not

# EXIF orientation -> the move that sets the picture upright; 1 is upright already.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
# What people hand in by mistake, by its first bytes, and what to do about it.
_NOT_PHOTOS = (
    (b"%PDF", "a PDF: export the page as PNG"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"<!doctype", "a web page: download the picture itself"),
    (b"<html", "a web page: download the picture itself"),
    (b"#?radiance", "a Radiance HDR picture: tone-map it to 8 bit first"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture: tone-map it to 8 bit first"),
    (b"\x93numpy", "a NumPy file: load it with numpy.load and pass the array"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the picture with `git lfs pull`"),
    (b"pk\x03\x04", "a zip archive: unpack it first"),
)
# Image.open reads its pixel limit from a global; the lock keeps our own threads from undoing each other.
_limit_lock = threading.Lock()


def read_photo(source: Photo, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photo in any common form as 8-bit RGB, upright.

    EXIF orientation is applied. Transparent pixels are laid over white. 16-bit grey, of files and arrays, is
    scaled so that 65535 becomes 255. Of an animation the first frame is read; a PIL image is taken at its
    own frame. Colour profiles are not applied: the published vision-language models were trained without.

    Args:
        source: path; bytes of an image file; PIL image of any mode; or array (H, W), (H, W, 1), (H, W, 3) RGB
            or (H, W, 4) RGBA: uint8, uint16, bool, floats in [0, 1], or other integers in 0..255.
        max_pixels: photos with more pixels than this are refused before they are decoded.

    Returns:
        Array (H, W, 3) uint8, RGB, the caller's own copy.

    Raises:
        ImageError: the source is missing, damaged, no image, too large, or an array of another form.
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
            f"cannot read {name}: a tensor does not say how its channels lie; "
            "pass an array (H, W, 3), for (3, H, W): tensor.permute(1, 2, 0).cpu().numpy()"
        )
    raise ImageError(f"cannot read {name}: pass a path, bytes, a PIL image or a NumPy array")


def _describe(source: Any) -> str:
    """A name for error messages."""
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        file = getattr(source, "filename", "")
        return str(file) if file else f"{source.mode} picture of {source.width} x {source.height} px"
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
        with _no_pixel_limit():
            image = Image.open(BytesIO(data))
    except Exception as error:  # a damaged header makes Pillow's plugins raise almost anything
        raise ImageError(f"cannot read {name}: {_what_is_wrong(data)}") from error
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
    except Exception as error:  # as above: the plugins raise almost anything
        form = image.format or "picture"
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = f"truncated {form} ({_how_much(data)})" if cut else f"damaged {form} ({error})"
        raise ImageError(f"cannot read {name}: {reason}; copy or download it again") from error
    rgb = _to_rgb(image, name)
    # Read after load(): Pillow sets some formats upright itself while it loads, and then drops the tag.
    move = _UPRIGHT.get(_orientation(image))
    return np.array(rgb if move is None else rgb.transpose(move))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF record is no reason to refuse the picture
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(_from_array(np.asarray(image), name))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # Pillow opens some 16-bit files as 32-bit integers; the values tell 8 bit from 16.
        wide = image.mode != "I" or int(values.max()) > 255
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"cannot read {name}: its 32-bit values run from {values.min()} to {values.max()}; "
                "scale them to 8 or 16 bit first"
            )
        return Image.fromarray(_from_array(values.astype(np.uint16 if wide else np.uint8), name))
    try:
        if image.mode == "La":  # Pillow turns this one into RGBA only by way of LA
            image = image.convert("LA")
        if image.has_transparency_data:
            return _over_white(image.convert("RGBA"))
        return image.convert("RGB")
    except (ValueError, ImportError, OSError) as error:
        raise ImageError(f"cannot read {name}: no way from mode {image.mode} to RGB; save it as RGB") from error


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
    pixels = _to_8_bit(array, name)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return np.array(_over_white(Image.fromarray(np.ascontiguousarray(pixels))))
    return np.array(pixels, order="C")


def _to_8_bit(array: np.ndarray, name: str) -> np.ndarray:
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
        # NaN fails both comparisons; the margin forgives the overshoot of an earlier rounding.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            hint = "divide by 255" if 1 < high <= 255 and low >= 0 else "scale them, or tone-map the picture"
            raise ImageError(f"cannot read {name}: its floats run from {low:g} to {high:g}, not from 0 to 1; {hint}")
        return (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    if low < 0 or high > 255:
        raise ImageError(
            f"cannot read {name}: its integers run from {low} to {high}; pass uint8 for 0..255 or uint16 for 0..65535"
        )
    return array.astype(np.uint8)


def _over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Open a file's header without Pillow's own limit (a warning at 89, an error at 179 million pixels)."""
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _what_is_wrong(data: bytes) -> str:
    """Why Pillow does not know a file, and the remedy."""
    start = data[:512].lstrip().lower()
    for prefix, hint in _NOT_PHOTOS:
        if start.startswith(prefix):
            return f"it is {hint}"
    if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "it is a HEIC picture: convert it to JPEG, or `pip install pillow-heif` and register its opener"
    if start.startswith((b"\xff\xd8", b"\x89png", b"riff", b"gif8", b"bm")):
        return f"truncated or damaged picture ({_how_much(data)}); copy or download it again"
    return f"it is no picture that Pillow knows (it starts with {data[:8]!r}); convert it to JPEG or PNG"


def _how_much(data: bytes) -> str:
    """What is there of a truncated file, and of how much where the format says so."""
    declared = 0
    if data[:4] == b"RIFF" and len(data) >= 8:
        declared = int.from_bytes(data[4:8], "little") + 8
    elif data[:2] == b"BM" and len(data) >= 6:
        declared = int.from_bytes(data[2:6], "little")
    if declared > len(data) > 0:
        return f"{_kilobytes(len(data))} of {_kilobytes(declared)}"
    return f"it ends after {_kilobytes(len(data))}" if data else "it ends too early"
