"""Names that mean everything else, such as "background" or "other", and the texts that stand for them."""

import re
from functools import lru_cache

_NAMES = frozenset(
    {
        "background", "backdrop", "bg", "other", "others", "other things", "other objects", "rest", "remainder",
        "everything", "everything else", "anything else", "something else", "all else", "all others", "nothing else",
        "none", "none of these", "none of them", "none of the above", "no class", "no label", "nothing", "void",
        "ignore", "ignored", "unlabeled", "unlabelled", "not labeled", "not labelled", "unannotated", "unassigned",
        "unclassified", "unspecified", "undefined", "misc", "miscellaneous",
    }
)  # fmt: skip

COMMON = (
    "person", "face", "hand", "hair", "clothing", "shoe", "hat", "bag", "umbrella", "crowd",
    "dog", "cat", "bird", "horse", "cow", "sheep", "fish", "insect", "animal",
    "car", "truck", "bus", "train", "bicycle", "motorcycle", "boat", "airplane", "wheel",
    "sky", "cloud", "sun", "mountain", "hill", "tree", "forest", "bush", "grass", "flower", "leaf", "plant", "soil",
    "sand", "rock", "snow", "ice", "water", "sea", "river", "lake", "field", "fire", "smoke",
    "road", "sidewalk", "bridge", "building", "house", "roof", "window", "door", "stairs", "fence", "wall", "pole",
    "traffic light", "sign", "railway", "tent",
    "floor", "ceiling", "carpet", "curtain", "table", "chair", "sofa", "bed", "shelf", "cabinet", "desk", "lamp",
    "mirror", "picture", "pillow", "blanket", "towel", "sink", "bathtub", "toilet", "oven", "refrigerator",
    "food", "fruit", "vegetable", "bread", "cake", "meat", "plate", "bowl", "cup", "bottle", "knife", "spoon",
    "book", "paper", "box", "toy", "ball", "clock", "phone", "computer", "screen", "keyboard", "camera", "machine",
    "tool", "cable", "cloth", "wood", "metal", "plastic", "stone", "glass", "text",
)  # fmt: skip
"""Common things and stuff: what "everything else" may be, for models without rivals of their own."""

SAME_MEANING = 0.7
"""Cosine similarity, after subtracting the mean of ``COMMON``, from which a common name means a requested one."""


@lru_cache(1 << 15)  # a vocabulary asks for each of its texts several times
def means_everything_else(text: str) -> bool:
    """Whether a name means everything that the other names do not, whatever its case.

    >>> means_everything_else("Background"), means_everything_else("the rest"), means_everything_else("other people")
    (True, True, False)
    """
    words = re.sub(r"[\s_/-]+", " ", text.casefold()).strip(" ()[]<>.'\"")
    return words.removeprefix("the ") in _NAMES


def names_the_same(first: str, second: str) -> bool:
    """Whether two names have the same last word, in singular or plural: "cups" and "red cup"."""
    return _last_word(first) == _last_word(second)


def _last_word(text: str) -> str:
    words = text.casefold().split()
    return words[-1].removesuffix("s") if words else ""
