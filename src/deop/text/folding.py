"""Letters that a table of English words lacks, written in those that it has: "façade" becomes "facade"."""

import re
import unicodedata

_VARIANT = re.compile("LATIN (?:SMALL|CAPITAL) LETTER ([A-Z]) WITH ")
_LETTERS = str.maketrans(
    {
        # Letters without another in their Unicode name, such as LATIN SMALL LETTER O WITH STROKE.
        "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "\u0131": "i", "ŋ": "ng", "ə": "e",
        # Apostrophes, and accents in their place: ‘ ’ ‚ ‛ ′ ‵ ʼ ʹ ´ ` ＇
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2035\u02bc\u02b9\u02bb\u00b4\u0060\uff07", "'"),
        # Hyphens and dashes: hyphen, no-break hyphen, figure dash, en dash, em dash, bar, minus, small and full-width.
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
        "\u2044": "/",  # the fraction bar of "½"
        "\u00b7": None,  # the dot inside a word, as in the Catalan "paral·lel"
    }
)  # fmt: skip


def fold(text: str) -> str:
    """A text in lower case, without accents, ligatures and typographic variants of letters, hyphens and apostrophes.

    Letters are decomposed (NFKD) and their combining marks are dropped; letters that do not decompose, such as "ø" and
    "ß", are written as usual without them. Digits of all scripts become 0 to 9. Letters of other alphabets are kept.

    >>> fold("Façade"), fold("Straße"), fold("ｃｕｐ"), fold("crème brûlée")
    ('facade', 'strasse', 'cup', 'creme brulee')
    """
    if text.isascii() and "`" not in text:
        return text.lower()
    # Apostrophes first: NFKD turns "´" into a space and an accent.
    letters = unicodedata.normalize("NFKD", text.translate(_LETTERS)).casefold().translate(_LETTERS)
    return "".join(_plain(letter) for letter in unicodedata.normalize("NFKD", letters) if not _is_mark(letter))


def unread_letters(text: str) -> str:
    """The letters, digits and signs of a folded text that are not ASCII, each once, in their order.

    Punctuation and invisible characters have no meaning of their own and are not listed.

    >>> unread_letters("cup 猫, ☕")
    '猫☕'
    """
    if text.isascii():
        return ""
    return "".join(dict.fromkeys(letter for letter in text if not letter.isascii() and _is_meaningful(letter)))


def _plain(letter: str) -> str:
    """A decomposed character as an ASCII letter or digit, if it is a form of one."""
    if letter.isascii():
        return letter
    if letter.isdigit():
        return str(unicodedata.digit(letter))
    named = _VARIANT.match(unicodedata.name(letter, ""))
    return named[1].lower() if named else letter


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me")


def _is_meaningful(letter: str) -> bool:
    """Whether a character is a letter, a digit, or a sign such as an emoji."""
    category = unicodedata.category(letter)
    return category[0] in "LN" or category in ("So", "Mc", "Co", "Cn")
