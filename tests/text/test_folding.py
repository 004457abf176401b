"""Letters that a word table lacks are written in those that it has."""

# ruff: noqa: RUF001 the letters look like others, which is the subject

import re
import string
import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given

from deop.text.folding import fold, unread_letters


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("façade", "facade"),
        ("cafe\u0301", "cafe"),  # a letter and a combining mark
        ("CAFÉ", "cafe"),
        ("crème brûlée", "creme brulee"),
        ("Straße", "strasse"),
        ("STRAẞE", "strasse"),
        ("smørrebrød", "smorrebrod"),
        ("Œuvre", "oeuvre"),
        ("Æsop", "aesop"),
        ("ﬁne ﬂoor", "fine floor"),  # ligatures
        ("Łódź", "lodz"),
        ("Þórður", "thordur"),
        ("Đà Nẵng", "da nang"),
        ("İstanbul", "istanbul"),
        ("ıspanak", "ispanak"),
        ("ＣＵＰ １２", "cup 12"),  # full width
        ("paraŀlel", "parallel"),
        ("½ cup, m²", "1/2 cup, m2"),
        ("٣ cups", "3 cups"),  # Arabic digit
        ("catcher’s mitt", "catcher's mitt"),
        ("catcher´s mitt", "catcher's mitt"),
        ("catcher`s mitt", "catcher's mitt"),
        ("go‑kart", "go-kart"),  # hyphen that does not break
        ("black–white", "black-white"),
        ("猫 cup", "猫 cup"),
    ],
)
def test_folding_by_hand(text, folded):
    assert fold(text) == folded


@given(st.text())
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


def test_letters_with_a_latin_base_become_that_base():
    """By Unicode's own names: LATIN SMALL LETTER E WITH ACUTE is an e, in the blocks up to Latin Extended-B."""
    count = 0
    for code in range(0xC0, 0x250):
        named = re.fullmatch(
            "LATIN (SMALL|CAPITAL) LETTER ([A-Z]) WITH (?!SMALL LETTER).*", unicodedata.name(chr(code))
        )
        if named and code != 0x19F:  # whose small form is called a barred o
            assert fold(chr(code)) == named[2].lower()
            count += 1
    assert count > 250


@given(st.text(string.printable))
def test_ascii_is_lowered(text):
    assert fold(text) == text.lower().replace("`", "'")
    assert unread_letters(fold(text)) == ""


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("cup", ""),
        ("猫 cup 猫", "猫"),
        ("кот", "кот"),
        ("☕ cup 👩‍👧", "☕👩👧"),  # the joiner between the emoji is invisible
        ("“cup” — €", ""),  # punctuation and currency signs
        ("¡cup!", ""),
    ],
)
def test_unread_letters(text, unread):
    assert unread_letters(fold(text)) == unread
