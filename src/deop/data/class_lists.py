"""The class lists of the public data sets, which ship with the package: ``classes/*.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).with_name("classes")


@dataclass(frozen=True)
class OfficialClass:
    """One class of a public data set.

    Attributes:
        id: in prepared masks.
        official: value of a pixel in the official files.
        name: as the authors of the data set spell it, which is what papers ask for.
        plain: in words, where that differs: "potted plant" for "pottedplant", with synonyms, "road|route".
        isthing: whether it can be counted; None where the data set does not say.
        seen: whether zero-shot training sees it; None where there is no such split.
    """

    id: int
    official: int
    name: str
    plain: str = ""
    isthing: bool | None = None
    seen: bool | None = None


def official_classes(name: str) -> tuple[OfficialClass, ...]:
    """The classes of a list in ``classes/``, by its name without ending, in their order."""
    return tuple(OfficialClass(**entry) for entry in _read(name)["classes"])


def source_of(name: str) -> str:
    """Where a list was taken from."""
    return str(_read(name)["source"])


def _read(name: str) -> dict:
    return json.loads((LISTS / f"{name}.json").read_text(encoding="utf-8"))
