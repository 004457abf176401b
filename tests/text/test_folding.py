"""Letters that a word table lacks are written in those that it has."""

# ruff: noqa: RUF001 the letters look like others, which is the subject

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


@given(st.text(st.characters(min_codepoint=0xC0, max_codepoint=0x24F)))
def test_letters_with_a_latin_base_become_that_base(text):
    """By Unicode's own names: LATIN SMALL LETTER E WITH ACUTE is an e."""
    for letter in text:
        name = unicodedata.name(letter)
        base = name.removeprefix("LATIN SMALL LETTER ").removeprefix("LATIN CAPITAL LETTER ").split(" WITH ")
        if len(base) == 2 and len(base[0]) == 1 and unicodedata.decomposition(letter):
            assert fold(letter) == base[0].lower()


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
