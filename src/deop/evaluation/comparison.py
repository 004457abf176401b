"""Compares settings of a model, such as severances, on the same photos, with paired intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Scored:
    """What ``evaluate`` returns, and the scores of each resample of the photos.

    Attributes:
        scores: the result of ``evaluate``.
        draws: those of ``SCORES`` that are known -> (resamples,) scores in [0, 1]; the resamples are the same for all
            settings that are evaluated on the same photos with the same ``Bootstrap``.
    """

    scores: dict[str, Any]
    draws: dict[str, np.ndarray]

    def minus(self, other: "Scored", bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
        """Paired differences to another setting.

        Photos that are hard for both do not hide a difference, since each resample is scored with both.

        Args:
            other: evaluated on the same photos, with the same ``bootstrap``.
            bootstrap: settings of the intervals.

        Returns:
            For each score that both know ``{"gain": float, "interval": [low, high]}`` in [-1, 1]; the interval is None
            if there is one photo only.
        """
        differences = {}
        for key in [key for key in self.draws if key in other.draws]:
            interval = bootstrap.interval(self.draws[key] - other.draws[key]) if self.scores["images"] > 1 else None
            gain = self.scores[key] - other.scores[key]
            differences[key] = {"gain": gain, "interval": None if interval is None else interval.tolist()}
        return differences


def evaluate_with_draws(
    model: "ModelSurface",
    data: LabelledData,
    protocol: Protocol,
    progress: Callable[[int, int], None] | None = None,
    *,
    bootstrap: Bootstrap | None = None,
) -> Scored:
    """As ``evaluate``, with the same arguments and errors; the scores of the resamples are kept."""
    bootstrap = bootstrap or Bootstrap()
    sums: list[PhotoSums] = []

    def count(photo: EvaluatedPhoto) -> None:
        counts = photo.confusion.counts
        if not sums:
            sums.append(PhotoSums(counts.shape))
        sums[0].add(counts)

    scores = evaluate(model, data, protocol, progress, bootstrap=bootstrap, watch=count)
    unseen = np.isin(list(scores["per_class"]), scores["unseen"]) if scores["unseen"] else None
    known = [key for key in SCORES if scores[key] is not None]

    def score(part: np.ndarray) -> np.ndarray:
        parts = semantic_scores(part, unseen)
        return np.stack([parts[key] for key in known], -1)

    return Scored(scores, dict(zip(known, bootstrap.draw(sums[0], score).T, strict=True)))


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
    rows: list[Scored] = []
    for index, one in enumerate(protocols):

        def advance(done: int, photos: int, index: int = index) -> None:
            if progress:
                progress(index * photos + done, len(severances) * photos)

        rows.append(evaluate_with_draws(model, data, one, advance, bootstrap=bootstrap))
    return [
        {**row.scores, "severance": name, "difference": row.minus(rows[0], bootstrap)}
        for name, row in zip(severances, rows, strict=True)
    ]
