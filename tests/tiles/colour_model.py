"""A model with a known answer: a pixel has the name of its colour. Its masks are found from pixels alone."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deop.images.canvas import Canvas
from deop.images.preprocessing import Resize
from deop.images.reading import read_photo
from deop.labelling.masks import PhotoMasks
from deop.settings import Card, Settings
from deop.surface import ModelSurface
from deop.text.embedded_classes import Classes

SURE = 30.0


def colours(count):
    """Distinct colours (count, 3) uint8."""
    index = np.arange(count)
    return np.stack([index % 16 * 16, index // 16 % 16 * 16, 8 + index // 256 * 16], 1).astype(np.uint8)


def names(count):
    return [f"name {number}" for number in range(count)]


def picture(labels):
    """The picture (H, W, 3) whose answer is ``labels``; -1 becomes white, which is no name."""
    return np.concatenate([colours(int(labels.max()) + 1), [[255, 255, 255]]]).astype(np.uint8)[labels]


def blobs(shape, count, seed=0, size=40):
    """A label map of rectangles in [-1, count), all names in it."""
    random = np.random.default_rng(seed)
    labels = np.full(shape, 0, np.int32)
    for number in range(2 * count):
        top, left = random.integers(0, shape[0]), random.integers(0, shape[1])
        height, width = random.integers(1, size, 2)
        labels[top : top + height, left : left + width] = (number % (count + 1)) - 1
    return labels


@dataclass
class Encoded:
    photo: np.ndarray
    canvas: Canvas
    masks: PhotoMasks
    probabilities: np.ndarray
    source: str | None = None
    masks_are_instances: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


class Table:
    uses_templates = False
    identity = "colours"
    is_table = True


class ColourModel(ModelSurface):
    """Names of pixels by their colour.

    Args:
        count: number of names.
        stride: pixels of a cell of the network input; 1: the answer is exact.
        border: cells this close to the edge of what the model sees get a wrong name, as at the edges of tiles.
        seconds: time that an image takes.
        fail_after: raises an error after so many images.
    """

    device = "cpu"

    def __init__(self, count, *, stride=1, border=0, seconds=0.0, fail_after=None, settings=None):
        self.count, self.stride, self.border, self.seconds = count, stride, border, seconds
        self.settings = settings or Settings(resize=Resize(short_side=None, divisor=1), threshold=0.4)
        self.card, self.text, self.cache = Card(name="colours"), Table(), None
        self.seen = []
        self.fail_after = fail_after

    def embed(self, vocabulary, *, progress=False):
        count = len(vocabulary.names)
        rows = np.eye(count, dtype=np.float32)
        return Classes(rows=rows, owner=np.arange(count), names=vocabulary.names)

    def encode(self, photos, masks=None, *, severance=None, anchors=None, classifier="one-pass"):
        return [self._encode(read_photo(photo)) for photo in photos]

    def _encode(self, photo):
        if self.fail_after is not None and len(self.seen) >= self.fail_after:
            raise OSError(28, "No space left on device")
        time.sleep(self.seconds)
        self.seen.append(photo.shape[:2])
        height, width = photo.shape[:2]
        step = self.stride
        cells = photo[step // 2 :: step, step // 2 :: step].astype(np.int32)
        index = cells[..., 0] // 16 + cells[..., 1] // 16 * 16 + cells[..., 2] // 16 * 256
        index[(cells == 255).all(-1)] = -1
        if self.border:
            wrong = np.ones(index.shape, bool)
            wrong[self.border : -self.border, self.border : -self.border] = False
            index[wrong] = (index[wrong] + 1) % self.count
        present = np.unique(index[index >= 0])
        logits = np.where(index == present[:, None, None], SURE, -SURE).astype(np.float32)
        probabilities = np.zeros((len(present), self.count + 1), np.float32)
        probabilities[np.arange(len(present)), present] = 1
        canvas = Canvas((height, width), cells.shape[:2], cells.shape[:2])
        return Encoded(photo, canvas, PhotoMasks(logits), probabilities)

    def class_probabilities(self, encoded, names):
        return encoded.probabilities
