"""Fonts and text for pictures: any size, any script as far as the machine has letters for it."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont

from deop.errors import SettingError

# Pillow's own font has hardly more than English; these are what common systems have beyond it.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Helvetica.ttc",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "Arial Unicode.ttf",
    "ARIALUNI.TTF",
)
_NO_LETTER = "\U000fffff"  # private use: every font shows its box for "no such letter"


def choose_font(texts: Iterable[str], size: float, path: str | None = None) -> ImageFont.FreeTypeFont:
    """The font that has the most of the letters needed: Pillow's own where it has them all.

    Args:
        texts: what will be written.
        size: height of the letters, pixels.
        path: a font file to use instead.

    Raises:
        SettingError: the font file cannot be read.
    """
    size = max(1.0, size)
    if path is not None:
        font = _open(path, size)
        if font is None:
            raise SettingError(f"cannot read the font {path}: give a TrueType or OpenType file")
        return font
    letters = frozenset(letter for text in texts for letter in text if not _blank(letter))
    name = _best_font(letters)
    font = _open(name, size) if name else None
    return font or _own(size)


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, in letters that the font has, cut with "..." where it is wider than ``width`` pixels."""
    text = " ".join("".join(_spell(letter, font) for letter in text).split())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle].rstrip() + "...") <= width else (low, middle - 1)
    return text[:low].rstrip() + "..."


def _own(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise SettingError("this Pillow has no FreeType to write with: `pip install --force-reinstall pillow`")
    return font


def _open(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=64)
def _best_font(letters: frozenset[str]) -> str | None:
    """Name of the first font with the most of these letters; None is Pillow's own."""
    best, most = None, sum(_has(letter, _own(16)) for letter in letters)
    for name in _SYSTEM_FONTS:
        if most == len(letters):
            break
        font = _open(name, 16)
        count = sum(_has(letter, font) for letter in letters) if font else 0
        if count > most:
            best, most = name, count
    return best


def _has(letter: str, font: ImageFont.FreeTypeFont) -> bool:
    return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


def _blank(letter: str) -> bool:
    """Spaces, line breaks and other controls: nothing to draw, and the layout library fails on some."""
    return letter.isspace() or unicodedata.category(letter).startswith("C")


def _spell(letter: str, font: ImageFont.FreeTypeFont) -> str:
    """The letter, or without its accents where the font lacks it, or as it is."""
    if _blank(letter):
        return " "
    if letter.isascii() or _has(letter, font):
        return letter
    bare = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return bare if bare and bare.isascii() else letter
