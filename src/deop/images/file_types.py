"""What a file is, from its first bytes: an image that can be read, or something else, with what to do about it."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deop.files import check_regular

HEAD = 512
"""Number of bytes at the start of a file that ``file_type`` looks at."""

_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
# Files that are often found among photos or passed by mistake: first bytes in lower case, what they are, the remedy.
_OTHERS = (
    (b"%pdf", "PDF", "export the page as PNG"),
    (b"<svg", "SVG drawing", "export it as PNG"),
    (b"<!doctype", "web page", "download the image itself"),
    (b"<html", "web page", "download the image itself"),
    (b"#?radiance", "Radiance HDR image", "tone-map it to 8 bits first"),
    (b"\x76\x2f\x31\x01", "OpenEXR image", "tone-map it to 8 bits first"),
    (b"\x93numpy", "NumPy file", "load it with numpy.load and pass the array"),
    (b"version https://git-lfs", "Git LFS pointer", "fetch the image with `git lfs pull`"),
    (b"pk\x03\x04", "zip archive", "unpack it first"),
    (b"%!ps", "PostScript file", "export it as PNG"),
    (b"8bps", "Photoshop file", "export it as PNG"),
    (b"\xff\x0a", "JPEG XL image", "convert it to JPEG or PNG"),
    (b"\0\0\0\x0cjxl ", "JPEG XL image", "convert it to JPEG or PNG"),
    (b"fujifilmccd-raw", "camera raw file", "develop it to JPEG or PNG"),
    (b"\x1a\x45\xdf\xa3", "video", "extract the frames you need"),
)
_HEIF_BRANDS = (b"hei", b"hev", b"mif", b"msf")
_JPEG_2000_BRANDS = (b"jp2 ", b"jpx ", b"jph ")
_RAW_SUFFIXES = frozenset(
    (".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf",
     ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f")
)  # fmt: skip


class FileWarning(UserWarning):
    """How one file is read. The command line shows only the first of them.

    Attributes:
        limit: how many it shows.
    """

    limit = 3


@dataclass(frozen=True)
class FileType:
    """What a file is.

    Attributes:
        name: "JPEG" for an image that can be read, with an article otherwise: "HEIC image", "PDF". "" if unknown.
        remedy: how to make an image of it, for a file that cannot be read as one.
        readable: whether Pillow reads it on this machine.
    """

    name: str = ""
    remedy: str = ""
    readable: bool = False

    @property
    def reason(self) -> str:
        """Why a file is left out: its name and the remedy; "" if it is unknown."""
        return f"{self.name}: {self.remedy}" if self.remedy else self.name


UNKNOWN = FileType()
"""A file whose first bytes are not those of any known type, such as a text file."""


def file_type(start: bytes) -> FileType:
    """What a file is, from its first bytes.

    Args:
        start: the first ``HEAD`` bytes, or all if there are fewer.

    >>> file_type(b"GIF89a...").name, file_type(b"%PDF-1.7").name, file_type(b"just a text").name
    ('GIF', 'PDF', '')
    """
    for prefix, name in _IMAGES:
        if start.startswith(prefix):
            return FileType(name, readable=True)
    if start[:4] == b"RIFF" and len(start) >= 12:
        if start[8:12] == b"WEBP":
            return FileType("WebP", readable=True)
        video = start[8:12] == b"AVI "
        return FileType("video", "extract the frames you need") if video else FileType("sound file")
    if start[4:8] == b"ftyp":
        return _iso_media(start[8:12])
    if start[:2] == b"BM" and len(start) >= 18 and int.from_bytes(start[14:18], "little") in (12, 40, 52, 56, 108, 124):
        return FileType("BMP", readable=True)
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3] in (b"\n", b"\r", b" ", b"\t"):
        rest = start[3:].lstrip()
        if rest[:1].isdigit() or rest[:1] == b"#":
            return FileType("PNM", readable=True)
    lowered = start.lstrip().lower()
    if lowered.startswith(b"<?xml") and b"<svg" in lowered:
        return FileType("SVG drawing", "export it as PNG")
    for prefix, name, remedy in _OTHERS:
        if lowered.startswith(prefix):
            return FileType(name, remedy)
    return UNKNOWN


def file_type_at(path: Path) -> FileType:
    """What a file on disk is, from its first bytes; and from its suffix, for camera raw files.

    Most raw files are TIFF files, in which Pillow would find the small preview only.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix.lower() in _RAW_SUFFIXES:
        return FileType("camera raw file", "develop it to JPEG or PNG")
    check_regular(path)
    with path.open("rb", buffering=0) as file:
        return file_type(file.read(HEAD))


def _iso_media(brand: bytes) -> FileType:
    """The type of a file in the container of MP4, from its main brand."""
    if brand[:3] in _HEIF_BRANDS:
        return FileType("HEIC image", "`pip install pillow-heif`, or convert it to JPEG", has_heif_plugin())
    if brand in (b"avif", b"avis"):
        from PIL import features

        return FileType(
            "AVIF image", "`pip install -U pillow`, or convert it to JPEG", "avif" in features.get_supported()
        )
    if brand in _JPEG_2000_BRANDS:
        return FileType("JPEG 2000", readable=True)
    if brand[:3] == b"crx":
        return FileType("camera raw file", "develop it to JPEG or PNG")
    return FileType("video", "extract the frames you need")


@cache
def has_heif_plugin() -> bool:
    """Whether pillow-heif, which reads HEIC images, is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def register_plugins() -> None:
    """Let Pillow open HEIC images, if pillow-heif is installed."""
    if has_heif_plugin():
        import pillow_heif

        pillow_heif.register_heif_opener()


def is_url(source: object) -> bool:
    """Whether a text is a web address rather than a path.

    >>> is_url("https://example.org/cat.jpg"), is_url("cat.jpg"), is_url("C:/cat.jpg")
    (True, False, False)
    """
    return isinstance(source, str) and source[:8].lower().startswith(("https://", "http://", "ftp://"))
