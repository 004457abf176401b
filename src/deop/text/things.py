"""A guess whether a name means a countable thing or stuff (sky, grass, wall), for names without that information."""

_WORDS = """
    background floor ceiling wall walls ground pavement sidewalk road street path pathway track railroad runway
    platform dirt mud sand gravel snow ice water sea ocean river lake pond waterfall pool wave fog mist smoke sky cloud
    clouds grass lawn meadow field playingfield court pitch earth soil land terrain hill hills mountain mountains rock
    rocks stone cliff forest wood woods bush bushes shrub vegetation foliage hedge moss straw hay leaves plants beach
    shore coast desert building buildings house skyscraper tower bridge fence railing net banner curtain curtains
    drapes blind blinds blanket rug carpet mat towel cloth clothes textile fabric cardboard paper plastic metal concrete
    brick bricks tile tiles marble counter countertop shelf cabinet cupboard furniture stairs roof tent fruit vegetable
    vegetables salad food rubble crowd asphalt panel structure
"""
_STUFF = frozenset(_WORDS.split())


def is_thing(name: str) -> bool:
    """Guess whether a name means a countable thing, from its head word.

    The head word is the last word before the first hyphen: "wall-concrete" is a wall, and a "wall clock" is a clock.
    Names whose head word is in a list of the stuff classes of COCO-Stuff, ADE20K and Cityscapes are stuff, all others
    things. The argument ``things`` of ``Vocabulary.parse`` and ``DeOP.segment`` replaces this guess.

    >>> is_thing("wall clock"), is_thing("wall-concrete")
    (True, False)
    """
    words = name.casefold().split("-")[0].split()
    return not words or words[-1] not in _STUFF
