"""Making scores mean something: names that training saw against others, everything that is not asked for, and a curve.

All three are settings that travel with a model; a model without them is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from deop.errors import SettingError
from deop.vocabulary import Classes


@dataclass(frozen=True)
class Calibration:
    """What is known of a model's scores.

    Attributes:
        trained_names: names that training saw.
        seen_penalty: by how much the logits of names that training saw, rivals among them, are lowered where others are
            asked for, so that these are not always beaten ("calibrated stacking", Chao et al., ECCV 2016).
        rivals: names that stand for everything not asked for. They take no pixel; their share of a mask's probability
            lowers the score of the names that were asked for, so that one name alone is not certain everywhere.
        rival_similarity: rivals whose text is closer than this (cosine) to a text asked for are left out: they would
            mean the same.
        curve: pairs (raw score, share of segments of that score that are right), both ascending, from photos that were
            not trained on; scores are read off it, linearly between the pairs. Empty: scores stay raw.
    """

    trained_names: tuple[str, ...] = ()
    seen_penalty: float = 0.0
    rivals: tuple[str, ...] = ()
    rival_similarity: float = 0.6
    curve: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("trained_names", "rivals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        curve = tuple((float(raw), float(share)) for raw, share in self.curve)
        object.__setattr__(self, "curve", curve)
        if any(second[0] <= first[0] or second[1] < first[1] for first, second in pairwise(curve)):
            raise SettingError("the calibration curve must ascend")

    def score(self, raw: float) -> float:
        """The calibrated score of a raw one, both in [0, 1]."""
        return float(np.interp(raw, self._raws, self._shares)) if self.curve else raw

    def raw(self, score: float) -> float:
        """The least raw score whose calibrated one reaches ``score``: the inverse of ``score``."""
        if not self.curve:
            return score
        if score > self._shares[-1]:
            return float(np.nextafter(1, 2))  # nothing is ever so sure
        return 0.0 if score <= self._shares[0] else float(np.interp(score, self._shares, self._raws))

    @property
    def _raws(self) -> list[float]:
        return [raw for raw, _ in self.curve]

    @property
    def _shares(self) -> list[float]:
        return [share for _, share in self.curve]


def calibrated(classes: Classes, texts: Sequence[str], rivals: Classes | None, calibration: Calibration) -> Classes:
    """Classes with rows for "none of these", and rows that training saw lowered where others are asked for.

    Args:
        classes: what was asked for.
        texts: what each of its M rows says, and then each row of the rivals.
        rivals: embeddings of ``calibration.rivals``; None: everything is one of the names.
        calibration: what is known of the model's scores.

    Returns:
        The classes with the rivals that do not mean what was asked for, which belong to no name, and an offset.
    """
    trained = {name.casefold() for name in calibration.trained_names}
    count, rows, owner = len(classes.rows), classes.rows, classes.owner
    kept = list(range(count))
    if rivals is not None:
        near = (rivals.rows @ rows.T).amax(1) if count else rivals.rows.new_zeros(len(rivals.rows))
        far = (near < calibration.rival_similarity).nonzero()[:, 0]
        rows = torch.cat([rows, rivals.rows[far]])
        owner = torch.cat([owner, owner.new_full((len(far),), len(classes.names))])
        kept += (far + count).tolist()
    seen = [texts[index].casefold() in trained for index in kept]
    lowered = torch.tensor(seen, dtype=torch.bool, device=rows.device)
    fair = all(seen[:count]) or not any(seen)
    offset = classes.offset if fair or not calibration.seen_penalty else -calibration.seen_penalty * lowered.float()
    return replace(classes, rows=rows, owner=owner, offset=offset)


def reliability(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean score, share of right ones and number, of segments in bins of equal number, lowest scores first.

    Args:
        scores: of segments, in [0, 1].
        right: whether each has the right name.
        bins: at most.
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    values, hits = np.asarray(scores, float), np.asarray(right, float)
    return [(float(values[part].mean()), float(hits[part].mean()), len(part)) for part in parts]


def calibration_error(rows: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error: mean distance of score and share in the rows of ``reliability``, by number."""
    return sum(abs(score - share) * count for score, share, count in rows) / sum(count for _, _, count in rows)
