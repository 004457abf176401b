"""Calibration of a model's scores: a penalty for seen names, rivals for everything else, and a score curve.

All three are settings that are stored with a model; a model without them has raw scores.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from deop.errors import SettingError


@dataclass(frozen=True)
class Calibration:
    """How a model's scores are calibrated.

    Attributes:
        trained_names: the seen names, which training used. A requested name is seen if any of its synonyms is listed,
            is a description whose head is listed, or is at least as similar to a rival as ``seen_similarity``.
        seen_penalty: subtracted from the logits of seen names (also of rivals) if unseen names are requested too, so
            that seen names do not always win ("calibrated stacking", Chao et al., ECCV 2016). A text that the encoder
            reads in pieces of words is lowered by it once more, since such vectors mean little.
        rivals: names that stand for everything that was not requested. No pixel gets them, but their share of the
            probability of a mask lowers the scores of the requested names: a single name is not certain everywhere.
        rival_similarity: rivals whose cosine similarity to a requested name is at least this are dropped, because they
            mean the same.
        seen_similarity: cosine similarity to a rival from which a name counts as seen, as plurals of seen names do.
        far_similarity: a name whose cosine similarity to every rival is lower is lowered like a seen name, since
            training taught nothing like it. -1: no name.
        groups: words that sum up names of the training, such as "animal", and these names. A requested word also stands
            for them, unless they are requested themselves.
        curve: pairs (raw score, share of correct segments at that score), both ascending, measured on photos that
            were not used in training. Scores are interpolated linearly between the pairs. Empty: raw scores.

    Raises:
        SettingError: the curve does not ascend, or names are not given as a list.
    """

    trained_names: tuple[str, ...] = ()
    seen_penalty: float = 0.0
    rivals: tuple[str, ...] = ()
    rival_similarity: float = 0.6
    seen_similarity: float = 1.0
    far_similarity: float = -1.0
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    curve: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("trained_names", "rivals"):
            names = getattr(self, name)
            if isinstance(names, str | set | frozenset):
                raise SettingError(f"{name} must be a list of names, not a {type(names).__name__}")
            object.__setattr__(self, name, tuple(names))
        object.__setattr__(self, "groups", tuple((word, tuple(names)) for word, names in self.groups))
        curve = tuple((float(raw), float(share)) for raw, share in self.curve)
        object.__setattr__(self, "curve", curve)
        if any(second[0] <= first[0] or second[1] < first[1] for first, second in pairwise(curve)):
            raise SettingError("the calibration curve must ascend, in raw scores and in shares")

    @property
    def needs_similarity(self) -> bool:
        """Whether the similarity of the requested names to the rivals matters."""
        return bool(self.rivals and self.seen_penalty) and (self.seen_similarity < 1 or self.far_similarity > -1)

    def score(self, raw: float) -> float:
        """The calibrated score of a raw score, both in [0, 1]."""
        return float(np.interp(raw, self._raw_scores, self._shares)) if self.curve else raw

    def scores(self, raw: np.ndarray) -> np.ndarray:
        """The calibrated scores of raw scores (...) float, all in [0, 1]."""
        return np.interp(raw, self._raw_scores, self._shares).astype(raw.dtype) if self.curve else raw

    def raw(self, score: float) -> float:
        """The smallest raw score whose calibrated score reaches ``score``: the inverse of ``score``."""
        if not self.curve:
            return score
        if score > self._shares[-1]:
            return float(np.nextafter(np.float32(1), np.float32(2)))  # no score is that high, also in float32
        return 0.0 if score <= self._shares[0] else float(np.interp(score, self._shares, self._raw_scores))

    @property
    def _raw_scores(self) -> list[float]:
        return [raw for raw, _ in self.curve]

    @property
    def _shares(self) -> list[float]:
        return [share for _, share in self.curve]
