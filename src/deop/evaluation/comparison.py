"""Compares severances of one model on the same photos, with paired intervals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.data.labelled import LabelledData
from deop.errors import SettingError
from deop.evaluation.bootstrap import Bootstrap, PhotoSums
from deop.evaluation.evaluate import EvaluatedPhoto, evaluate
from deop.evaluation.metrics import semantic_scores
from deop.evaluation.protocol import Protocol

if TYPE_CHECKING:
    from deop.surface import ModelSurface

SCORES = ("miou", "seen_miou", "unseen_miou", "hiou", "pixel_accuracy")


def compare_severances(
    model: "ModelSurface",
    data: LabelledData,
    protocol: Protocol,
    severances: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    *,
    bootstrap: Bootstrap | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a model with several severances, and their differences to the first.

    All rows are scored on the same resamples of the photos, so that photos that are hard for all of them do not hide a
    difference.

    Args:
        model: the model.
        data: the photos and their masks.
        protocol: as in ``evaluate``; its severance is not used.
        severances: two or more, as ``Severance.parse`` takes them.
        progress: called with the number of finished photos and of all photos, counted over all rows.
        bootstrap: settings of the intervals; None: ``Bootstrap()``.

    Returns:
        For each severance the scores of ``evaluate``, and under "difference" for each of ``SCORES`` that is known
        ``{"gain": float, "interval": [low, high] or None}``, relative to the first severance, in [-1, 1].

    Raises:
        SettingError: fewer than two severances, one twice, or as ``evaluate``.
        DataError: as ``evaluate``.
    """
    bootstrap = bootstrap or Bootstrap()
    if len(severances) < 2 or len(set(severances)) < len(severances):
        raise SettingError(
            f"cannot compare {', '.join(severances) or 'nothing'}: give two or more different severances"
        )
    protocols = [replace(protocol, severance=name) for name in severances]
    for one in protocols:  # before anything slow
        model.check_encoding(one.severance, one.anchors, one.classifier)
    rows: list[dict[str, Any]] = []
    first: dict[str, np.ndarray] = {}
    for index, (name, one) in enumerate(zip(severances, protocols, strict=True)):
        sums: list[PhotoSums] = []

        def count(photo: EvaluatedPhoto, sums: list[PhotoSums] = sums) -> None:
            counts = photo.confusion.counts
            if not sums:
                sums.append(PhotoSums(counts.shape))
            sums[0].add(counts)

        def advance(done: int, photos: int, index: int = index) -> None:
            if progress:
                progress(index * photos + done, len(severances) * photos)

        scores = evaluate(model, data, one, advance, bootstrap=bootstrap, watch=count)
        unseen = np.isin(list(scores["per_class"]), scores["unseen"]) if scores["unseen"] else None
        known = [key for key in SCORES if scores[key] is not None]

        def score(part: np.ndarray, known: list[str] = known, unseen: np.ndarray | None = unseen) -> np.ndarray:
            parts = semantic_scores(part, unseen)
            return np.stack([parts[key] for key in known], -1)

        draws = dict(zip(known, bootstrap.draw(sums[0], score).T, strict=True))
        first = first or draws
        difference = {}
        for key in draws.keys() & first.keys():
            interval = bootstrap.interval(draws[key] - first[key]) if scores["images"] > 1 else None
            gain = scores[key] - (rows[0] if rows else scores)[key]
            difference[key] = {"gain": gain, "interval": None if interval is None else interval.tolist()}
        rows.append({**scores, "severance": name, "difference": difference})
    return rows
