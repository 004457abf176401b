"""Which classes of a network trained on a fixed list mean the same as a requested name."""

import re
from collections.abc import Sequence

from deop.text.folding import fold

_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("people", "person"), ("men", "man"))
"""Endings of plurals, and what they replace."""

_SUFFIXES = frozenset(("other", "merged", "stuff"))
"""Last words of classes in COCO, such as "floor-other-merged"."""

_MATERIALS = frozenset(("brick", "carpet", "concrete", "marble", "panel", "stone", "tile", "wood"))
"""Second words of classes in COCO, such as "wall-brick"; the class also means the first word."""


def known_classes(synonyms: Sequence[Sequence[str]], classes: Sequence[str]) -> list[tuple[int, ...]]:
    """For each name the classes that mean it: upper and lower case, accents, hyphens and plurals do not matter.

    A class may list synonyms, separated by commas or semicolons, as in ADE20K ("door, double door"). Endings of COCO's
    classes do not matter ("sky-other-merged"), and its kinds of walls and floors are walls and floors ("wall-brick").

    Args:
        synonyms: all texts of each of K names.
        classes: C class names.

    Returns:
        K tuples of indices of classes, ascending; empty for a name that no class means.

    >>> known_classes([["cars"], ["sofa", "couch"], ["wall"]], ["couch", "car", "wall-brick", "wall-other-merged"])
    [(1,), (0,), (2, 3)]
    """
    of_classes = [_forms_of_class(text) for text in classes]
    result = []
    for texts in synonyms:
        wanted = set().union(*(forms(text) for text in texts))
        result.append(tuple(index for index, known in enumerate(of_classes) if known & wanted))
    return result


def forms(text: str) -> set[str]:
    """A text in plain letters, and with its last word in the singular."""
    words = re.sub(r"[-_\s]+", " ", fold(text)).strip()
    if not words:
        return set()
    singulars = (words.removesuffix(ending) + singular for ending, singular in _PLURALS if words.endswith(ending))
    return {words, *singulars}


def _forms_of_class(text: str) -> set[str]:
    found: set[str] = set()
    for part in re.split("[,;]", text):
        head, *rest = re.split("[-_]", fold(part).strip())
        while rest and rest[-1] in _SUFFIXES:
            rest.pop()
        found |= forms(" ".join([head, *rest]))
        if len(rest) == 1 and rest[0] in _MATERIALS:
            found |= forms(head) | forms(f"{rest[0]} {head}")
    return found
