"""Smoothing of label maps over time, so that labels do not flicker from frame to frame."""

import numpy as np

from deop.errors import SettingError

SCENE_CHANGE = 0.18
"""Mean absolute difference of the brightness of two frames, in [0, 1], above which they belong to different scenes."""


class LabelSmoother:
    """Gives each pixel the label with the largest weight in an exponential moving average over the frames.

    With smoothing s, a frame that lies n frames back has the weight (1 - s) s^n, so a new label appears once it has
    been seen in about log(1/2) / log(s) consecutive frames. Only the two labels with the largest weights are kept for
    each pixel: the average is exact for pixels that alternate between two labels, and the memory does not depend on
    the number of names. At a change of scene the average starts again.

    Args:
        smoothing: s in [0, 1); 0 leaves the labels as they are.

    Raises:
        SettingError: a value outside [0, 1).

    >>> smoother = LabelSmoother(0.8)
    >>> frame = np.zeros((1, 1, 3), np.uint8)
    >>> [int(smoother(frame, np.array([[label]]))[0, 0]) for label in (1, 1, 2, 1, 2, 2, 2)]
    [1, 1, 1, 1, 1, 1, 2]
    """

    def __init__(self, smoothing: float) -> None:
        if not 0 <= smoothing < 1:  # also NaN
            raise SettingError(f"smoothing must be in [0, 1), not {smoothing}: 0 is none, 0.8 is a good start")
        self.smoothing = smoothing
        self._labels = np.zeros((2, 0, 0), np.int32)  # of each pixel, the label with the larger weight first
        self._weights = np.zeros((2, 0, 0), np.float32)
        self._thumbnail = np.zeros((0, 0), np.float32)

    def __call__(self, frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Add a frame and return its smoothed labels.

        Args:
            frame: (H, W, 3) uint8, used to notice a change of scene.
            labels: (H, W) int32, -1 for none, which is a label like any other.

        Returns:
            (H, W) int32.
        """
        thumbnail = _brightness(frame)
        changed = thumbnail.shape != self._thumbnail.shape or labels.shape != self._labels.shape[1:]
        changed = changed or float(np.abs(thumbnail - self._thumbnail).mean()) > SCENE_CHANGE
        self._thumbnail = thumbnail
        new = np.float32(1 - self.smoothing)
        if changed:
            self._labels = np.stack([labels, labels]).astype(np.int32)
            self._weights = np.zeros(self._labels.shape, np.float32)
            self._weights[0] = 1
            return labels
        self._weights *= np.float32(self.smoothing)
        first, second = labels == self._labels[0], labels == self._labels[1]
        second &= ~first
        self._weights[0][first] += new
        self._weights[1][second] += new
        other = ~(first | second)
        # A third label takes the place of the second if its weight is larger.
        replaced = other & (self._weights[1] < new)
        self._labels[1][replaced] = labels[replaced]
        self._weights[1][replaced] = new
        swapped = self._weights[1] > self._weights[0]
        for pair in (self._labels, self._weights):
            pair[:, swapped] = pair[::-1, swapped]
        return self._labels[0].copy()


def _brightness(frame: np.ndarray) -> np.ndarray:
    """The brightness of about 32 x 32 pixels of a frame, in [0, 1]."""
    step = [max(1, side // 32) for side in frame.shape[:2]]
    return frame[:: step[0], :: step[1]].mean(axis=2, dtype=np.float32) / 255
