"""A guess whether a name means a countable thing or stuff (sky, grass, wall), for names without that information."""

import re

_WORDS = """
    background floor ceiling wall ground pavement sidewalk road street path pathway track railroad runway platform dirt
    mud sand gravel snow ice water sea ocean river lake pond waterfall pool wave fog mist smoke sky cloud grass lawn
    meadow field playingfield court pitch earth soil land terrain hill mountain rock stone cliff forest wood bush shrub
    tree vegetation foliage hedge moss straw hay leaves plants beach shore coast desert building house skyscraper tower
    bridge fence railing net banner curtain drapes blind blanket rug carpet mat towel cloth clothes textile fabric
    cardboard paper plastic metal concrete brick tile marble counter countertop shelf cabinet cupboard furniture stairs
    roof tent fruit vegetable salad food rubble crowd asphalt panel structure
"""
_STUFF = frozenset(_WORDS.split())

_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"))
"""Endings of plurals, and what they replace."""

_SUFFIXES = frozenset(("other", "merged", "stuff"))
"""Last words of names in COCO, such as "floor-other-merged"."""

_AFTER_HEAD = re.compile(r"[,(]|\b(?:of|on|in|at|with|without|by|from|for|near|behind|under|above|between)\b")
"""Where a description after the head word begins."""

_AMOUNTS = frozenset(("area", "body", "bit", "expanse", "patch", "stretch"))
"""Words before "of" that do not make stuff countable."""


def is_thing(name: str) -> bool:
    """Guess whether a name means a countable thing, from its head word.

    The head word is the last word before a preposition, a comma or a parenthesis: a "wall clock" and a "glass of water"
    are things, and a "brick wall in the sun" is stuff. Hyphens count as spaces. Names whose head word, or its singular,
    is in a list of words from the stuff classes of COCO-Stuff, ADE20K and Cityscapes are stuff, all others things. The
    argument ``things`` of ``Vocabulary.parse`` and ``DeOP.segment`` replaces this guess.

    >>> is_thing("wall clock"), is_thing("wall-concrete"), is_thing("glass of water"), is_thing("green hills")
    (True, False, True, False)
    """
    text = name.casefold().replace("-", " ")
    head, *rest = (part.split() for part in _AFTER_HEAD.split(text))
    if rest and head and head[-1] in _AMOUNTS:
        head = rest[0]
    while len(head) > 1 and head[-1] in _SUFFIXES:
        head.pop()
    return not head or not _is_stuff(head[-1])


def _is_stuff(word: str) -> bool:
    """Whether a word or its singular is in the list."""
    singulars = (word.removesuffix(ending) + singular for ending, singular in _PLURALS if word.endswith(ending))
    return word in _STUFF or any(singular in _STUFF for singular in singulars)
