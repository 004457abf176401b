"""Fonts of pictures: an installed font that has the characters of the text."""

import unicodedata
import warnings
from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont

from deop.errors import SettingError

# Pillow's built-in font covers little more than English; these are common fonts of operating systems.
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
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "unifont.otf",
    "unifont.ttf",
    "seguisym.ttf",
    "Symbola.ttf",
)
_MISSING = "\U000fffff"  # for private use: fonts show their box for missing characters


class FontWarning(UserWarning):
    """No installed font has all characters of a text."""


def choose_font(texts: Iterable[str], size: float, path: str | None = None) -> ImageFont.FreeTypeFont:
    """Choose the font that has most of the characters. Pillow's built-in font is preferred.

    Args:
        texts: the texts that will be written.
        size: font size, pixels.
        path: path of a font file to use instead.

    Raises:
        SettingError: the font file cannot be read.
    """
    size = max(1.0, size)
    if path is not None:
        font = _open(path, size)
        if font is None:
            raise SettingError(f"cannot read the font {path}: give a TrueType or OpenType file")
        return font
    characters = frozenset(character for text in texts for character in text if not _is_blank(character))
    name = _best_font(characters)
    font = _open(name, size) if name else None
    return font or _built_in(size)


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Bring a text into one line of at most ``width`` pixels, in characters of the font, truncated with "..."."""
    text = " ".join("".join(_replace_missing(character, font) for character in text).split())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle].rstrip() + "...") <= width else (low, middle - 1)
    return text[:low].rstrip() + "..."


def _built_in(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise SettingError(
            "this build of Pillow lacks FreeType, which writes text: `pip install --force-reinstall pillow`"
        )
    return font


@lru_cache(maxsize=64)
def _open(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=64)
def _best_font(characters: frozenset[str]) -> str | None:
    """Name of the first font with most of these characters; None for Pillow's built-in font."""
    best, best_count = None, sum(_has(character, _built_in(16)) for character in characters)
    for name in _SYSTEM_FONTS:
        if best_count == len(characters):
            break
        font = _open(name, 16)
        count = sum(_has(character, font) for character in characters) if font else 0
        if count > best_count:
            best, best_count = name, count
    missing = [character for character in sorted(characters) if not _is_readable(character, best)]
    if missing:
        warnings.warn(
            f"no installed font has the characters {''.join(missing)[:40]!r}, which are drawn as boxes: install one "
            "(on Linux for instance fonts-noto-cjk or fonts-noto-core), or give a font file with font=",
            FontWarning,
            stacklevel=2,
        )
    return best


def _is_readable(character: str, name: str | None) -> bool:
    """Whether a font has a character or something that ``fit_text`` replaces it by."""
    font = (_open(name, 16) if name else None) or _built_in(16)
    return all(_has(part, font) for part in _replace_missing(character, font) if not _is_blank(part))


def _has(character: str, font: ImageFont.FreeTypeFont) -> bool:
    return bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))


def _is_blank(character: str) -> bool:
    """Whether a character is white space or a control character; the layout library fails on some of the latter."""
    return character.isspace() or unicodedata.category(character).startswith("C")


def _replace_missing(character: str, font: ImageFont.FreeTypeFont) -> str:
    """The character; if the font lacks it, the character without accents, or the name of a symbol such as an emoji."""
    if _is_blank(character):
        return " "
    if character.isascii() or _has(character, font):
        return character
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    if plain and plain.isascii():
        return plain
    if unicodedata.category(character) == "So":
        return f" {unicodedata.name(character, character).lower()} "
    return "" if _is_joiner(character) else character


def _is_joiner(character: str) -> bool:
    """Whether a character only changes the one before it, such as the skin colour of an emoji."""
    return unicodedata.category(character) in ("Mn", "Me", "Sk")
