"""Which words of a description matter: "a woman smiling" is a woman, and "a red bus on a bridge" is a bus."""

from collections.abc import Sequence

MODIFIER_WEIGHT = 0.4
"""Weight of the words before the head, all together; the head has 1."""
REST_WEIGHT = 0.2
"""Weight of the words after the head, all together."""

PUNCTUATION = ",(;:"


# Words without a meaning that a photo shows.
_FILLERS = """
    a an the this that these those some any each every my your his her its our their and or very one two three
    four five six seven eight nine ten several many few both all
"""

# Words before "of" whose head is the word after it.
_AMOUNTS = """
    photo photograph picture image drawing view closeup close-up piece pieces slice slices bunch pair pairs
    group groups herd flock pile stack row rows set kind kinds type types sort bit patch area body stretch
    expanse lot lots couple number part parts crowd
"""

# Words after which no head follows, and which mean nothing themselves.
_LINKS = """
    of on in at with without by from for near behind under above between beside below over inside outside
    against around along among across through next while who which whose where is are to into onto up
"""

# Verbs of captions, after which no head follows either, except at the start: "a smiling woman".
_VERBS = """
    smiling standing sitting walking running riding holding wearing sleeping eating lying flying playing looking
    jumping driving drinking reading talking laughing carrying watching using cooking working waiting waving
    grazing hanging posing facing parked seated dressed covered filled made called shaped
"""


_FILLER_WORDS, _AMOUNT_WORDS, _LINK_WORDS, _VERB_WORDS = (
    frozenset(words.split()) for words in (_FILLERS, _AMOUNTS, _LINKS, _VERBS)
)


def weigh(units: Sequence[str]) -> list[float]:
    """The weight of each unit of a text in its embedding.

    The head is the last unit before a preposition, a verb or a punctuation mark; of "a piece of X" it is X.

    Args:
        units: words, phrases and punctuation marks, in lower case, in the order of the text.

    Returns:
        One weight for each unit, at least one of them above 0 if there is a word: 1 for the head; for the words before
        it ``MODIFIER_WEIGHT`` and for those after it ``REST_WEIGHT``, divided by their number; 0 for articles, numbers
        and the like. A text without a head has equal weights.

    >>> weigh(["a", "woman", "smiling"]), weigh(["old", "red", "bus"]), weigh(["a", "piece", "of", "cake"])
    ([0.0, 1.0, 0.2], [0.2, 0.2, 1.0], [0.0, 0.0, 0.0, 1.0])
    """
    before: list[int] = []
    after: list[int] = []
    ended = False
    for place, unit in enumerate(units):
        if unit == "of" and before and not ended and units[before[-1]] in _AMOUNT_WORDS:
            before.clear()
        elif unit in PUNCTUATION or unit in _LINK_WORDS:
            ended = bool(before)
        elif unit not in _FILLER_WORDS:
            ended = ended or (unit in _VERB_WORDS and bool(before))
            (after if ended else before).append(place)
    weights = [0.0] * len(units)
    if not before:  # "of", "a": nothing else can be meant
        return [float(unit not in PUNCTUATION) for unit in units]
    for places, weight in ((before[:-1], MODIFIER_WEIGHT), (after, REST_WEIGHT)):
        for place in places:
            weights[place] = weight / len(places)
    weights[before[-1]] = 1.0
    return weights
