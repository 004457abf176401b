"""The class lists of the public data sets, which are part of the package: ``classes/*.json``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LISTS = Path(__file__).with_name("classes")


@dataclass(frozen=True)
class OfficialClass:
    """A class of a public data set.

    Attributes:
        id: value of its pixels in prepared masks.
        official: value of its pixels in the official files.
        name: the name as the authors of the data set spell it, which is what papers use.
        plain: the name in ordinary words, possibly with synonyms, where it differs: "potted plant" for "pottedplant",
            "road|route".
        isthing: True for countable things, False for stuff; None if the data set does not say.
        seen: whether zero-shot training sees the class; None if the data set has no such split.
    """

    id: int
    official: int
    name: str
    plain: str = ""
    isthing: bool | None = None
    seen: bool | None = None


def official_classes(name: str) -> tuple[OfficialClass, ...]:
    """The classes in ``classes/{name}.json``, in order.

    >>> [entry.name for entry in official_classes("voc")][:3]
    ['aeroplane', 'bicycle', 'bird']
    """
    return tuple(OfficialClass(**entry) for entry in _read(name)["classes"])


def source_of(name: str) -> str:
    """Where the list in ``classes/{name}.json`` comes from."""
    return str(_read(name)["source"])


def _read(name: str) -> dict[str, Any]:
    return json.loads((LISTS / f"{name}.json").read_text(encoding="utf-8"))
