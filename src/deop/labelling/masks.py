"""The masks of one photo as arrays, from whatever engine they come."""

from typing import NamedTuple

import numpy as np

from deop.images.canvas import Canvas


class SemanticRule(NamedTuple):
    """Which pixels get no name, or the name of everything else; as in ``assembly.semantic``.

    Attributes:
        limits: (K + 1,) float32, the minimum score of each name and, last, of "none of these", which has none.
        claim: pixels with a sum of masks up to this get no name.
        everything_else: index of the name that pixels get that would have none; -1: none.
    """

    limits: np.ndarray
    claim: float = 0.0
    everything_else: int = -1


class PhotoMasks:
    """N masks of one photo.

    Attributes:
        logits: (N, h, w) float32, mask logits over the padded network input, at any stride; the sigmoid is the share of
            a cell that the mask covers. N may be 0.
        exact: (N, H, W) bool, given masks at the size of the photo, which are then used instead of the logits; or None.
    """

    def __init__(self, logits: np.ndarray, exact: np.ndarray | None = None) -> None:
        self._logits = logits
        self._exact = exact

    @property
    def logits(self) -> np.ndarray:
        """Mask logits (N, h, w)."""
        return self._logits

    @property
    def exact(self) -> np.ndarray | None:
        """Given masks (N, H, W), or None."""
        return self._exact

    def __len__(self) -> int:
        return len(self.logits)

    def keep(self, index: np.ndarray) -> "PhotoMasks":
        """The masks at ``index``, (M,) integers or (N,) bool, in that order; views if all or neighbours are kept."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        chosen: np.ndarray | slice = index
        if len(index) and (np.diff(index) == 1).all():
            chosen = slice(int(index[0]), int(index[-1]) + 1)  # avoids copies of exact masks, which are large
        return PhotoMasks(self.logits[chosen], None if self.exact is None else self.exact[chosen])

    def visible(self) -> np.ndarray:
        """Which masks have a cell with a probability above 0.5, (N,) bool."""
        covered = self.logits > 0 if self.exact is None else self.exact
        return np.asarray(covered.any((1, 2)))

    def semantic_at_once(
        self, votes: np.ndarray, canvas: Canvas, rule: SemanticRule
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The map of ``assembly.semantic`` from a device that computes it in a few large steps.

        Args:
            votes: (N, K) or (N, K + 1) float32.
            canvas: position of the photo in the masks.
            rule: which pixels get no name.

        Returns:
            Labels (H, W) int32 and confidences (H, W) float32; None, as here, where windows are faster.
        """
        return None
