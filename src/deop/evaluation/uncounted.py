"""Pixels and photos of a data set that an evaluation does not count: how many there are, and what to say about them."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deop.data.check import IGNORED
from deop.images.id_maps import UNLISTED_COLOUR

_SHOWN = 5  # ids and photos that a line names


@dataclass
class Uncounted:
    """What the photos so far have that does not count.

    Attributes:
        listed: ids of classes.json.
        pixels: number of all pixels.
        counted: number of pixels with a class.
        unlisted: number of pixels of each id that is neither listed nor 0 nor 255; ``UNLISTED_COLOUR`` for colours.
        photos: photos without a single counted pixel.
    """

    listed: Collection[int]
    pixels: int = 0
    counted: int = 0
    unlisted: Counter[int] = field(default_factory=Counter)
    photos: list[str] = field(default_factory=list)

    def add(self, name: str, ids: np.ndarray, truth: np.ndarray) -> None:
        """Count the pixels of a photo.

        Args:
            name: of the photo.
            ids: (H, W) integers, the ids in its mask.
            truth: (H, W) integers, -1 for pixels that do not count.
        """
        counted = int((truth >= 0).sum())
        self.pixels += truth.size
        self.counted += counted
        if not counted:
            self.photos.append(name)
        values, counts = np.unique(ids[truth < 0], return_counts=True)
        for label, count in zip(values.tolist(), counts.tolist(), strict=True):
            if label not in self.listed and label not in IGNORED:
                self.unlisted[label] += count

    def summary(self) -> dict[str, Any]:
        """The counts as JSON values, with shares of all pixels."""
        share = {
            "colours" if label == UNLISTED_COLOUR else str(label): count / max(self.pixels, 1)
            for label, count in self.unlisted.most_common()
        }
        return {
            "counted_share": self.counted / max(self.pixels, 1),
            "unlisted": {"share": sum(share.values()), "ids": share},
            "without_truth": list(self.photos),
        }


def describe_uncounted(scores: Mapping[str, Any]) -> list[str]:
    """Lines about what was not counted, from the result of ``evaluate``; [] if classes.json explains all pixels.

    >>> describe_uncounted({"unlisted": {"share": 0.5, "ids": {"7": 0.5}}, "without_truth": []})
    ['50.0 % of the pixels do not count, because classes.json does not list their ids: 7 (50.0 %)']
    """
    lines = []
    ids = scores["unlisted"]["ids"]
    if ids:
        shown = ", ".join(f"{label} ({_percent(share)})" for label, share in list(ids.items())[:_SHOWN])
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        lines.append(
            f"{_percent(scores['unlisted']['share'])} of the pixels do not count, because classes.json does not list "
            f"their ids: {shown}{more}"
        )
    if names := scores["without_truth"]:
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
        photos = "1 photo has" if len(names) == 1 else f"{len(names):,} photos have"
        lines.append(f"{photos} no pixel that counts: {shown}")
    return lines


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 else "less than 0.1 %"
