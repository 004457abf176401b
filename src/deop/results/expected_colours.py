"""The colours that people expect of common names: blue for the sky, green for grass, grey for everything else."""

from typing import NamedTuple

from deop.text.everything_else import means_everything_else

GREY = (128, 128, 128)
"""The colour of everything else."""

EVERYTHING_ELSE, NAME, COLOUR_WORD, HEAD_NOUN = range(4)
"""Why a name has an expected colour: the whole name, a colour in it, or its last word is known."""

_NAMES = {  # those whose colours matter most come first
    "#e24c70": "person people human man woman child boy girl baby pedestrian rider adult astronaut soldier worker",
    "#8cc8f4": "sky heaven",
    "#2272c8": "water sea ocean river lake pond pool canal waterfall swimming-pool",
    "#3c8a3c": "tree forest bush shrub hedge plant vegetation foliage leaf palm wood jungle",
    "#b2cb4c": "grass lawn meadow field pasture grassland",
    "#6c5a94": "road street asphalt highway lane roadway carriageway",
    "#cf9cc4": "sidewalk pavement footpath crosswalk",
    "#c8643e": "building house skyscraper brick church castle roof hut",
    "#d9b384": "wall",
    "#8a4f38": "floor ground soil earth dirt mud wooden-floor flooring parquet",
    "#4a45bd": "car vehicle automobile",
    "#f5d97c": "sand beach desert",
    "#7c9060": "mountain hill rock stone cliff",
    "#ec6f35": "fire flame lava campfire",
    "#f3d04f": "sun banana lemon sunflower",
    "#ec92c4": "flower blossom rose",
    "#ec943f": "carrot pumpkin tangerine",
    "#d0403c": "apple tomato strawberry cherry blood",
}
_WORDS = {
    "red": "#d0403c", "orange": "#ec943f", "yellow": "#f3d04f", "green": "#4fa058", "blue": "#3f74cc",
    "purple": "#8c50a8", "violet": "#8c50a8", "pink": "#ec92c4", "brown": "#8d5a34", "wooden": "#94683f",
    "golden": "#dcab42", "turquoise": "#3db0a8", "beige": "#d8c39a",
}  # fmt: skip


class Expected(NamedTuple):
    """The colour that people expect of a name. If several names expect similar colours, the least one gets it.

    Attributes:
        reason: ``EVERYTHING_ELSE``, ``NAME``, ``COLOUR_WORD`` or ``HEAD_NOUN``.
        place: in the list of colours; the first ones matter most.
        colour: sRGB, each in [0, 255].
    """

    reason: int
    place: int
    colour: tuple[int, int, int]


def expected_colour(name: str) -> Expected | None:
    """The colour that people expect of a name: of the whole name, of a colour in it, or of its last word.

    Args:
        name: in lower case, with single spaces.

    >>> [expected_colour(name).reason for name in ("other", "sky", "a red car", "police cars")]
    [0, 1, 2, 3]
    >>> expected_colour("umbrella") is None
    True
    """
    if means_everything_else(name):
        return Expected(EVERYTHING_ELSE, 0, GREY)
    if found := _lookup(name.replace(" ", "-")):
        return Expected(NAME, *found)
    words = name.split("-")[0].split()
    for word in words:
        if word in _WORDS:
            return Expected(COLOUR_WORD, 0, _parse(_WORDS[word]))
    if words and (found := _lookup(words[-1])):
        return Expected(HEAD_NOUN, *found)
    return None


def _lookup(word: str) -> tuple[int, tuple[int, int, int]] | None:
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((_TABLE[form] for form in forms if form in _TABLE), None)


def _parse(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


_TABLE = {
    word: (place, _parse(colour)) for place, (colour, words) in enumerate(_NAMES.items()) for word in words.split()
}
