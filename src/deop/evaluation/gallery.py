"""The photos that a report shows. Only a few are kept while a data set is evaluated."""

import io
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from deop.errors import SettingError
from deop.evaluation.evaluate import EvaluatedPhoto
from deop.evaluation.metrics import Confusion, mean
from deop.results.blending import paint, swatches
from deop.results.colours import vocabulary_colours

SIDE = 480
"""Longer side of a thumbnail in pixels."""

_UNKNOWN = (118, 118, 126)
"""Colour of pixels whose truth is unknown."""

_ALPHA = 0.62
"""Opacity of the colours."""


@dataclass(frozen=True)
class ClassShare:
    """A class in one photo. All shares are fractions of the photo's known pixels.

    Attributes:
        name: name of the class.
        colour: "#rrggbb".
        truth: share of true pixels.
        predicted: share of predicted pixels.
        hit: share of correct pixels.
    """

    name: str
    colour: str
    truth: float
    predicted: float
    hit: float


@dataclass(frozen=True)
class GalleryPhoto:
    """A photo with its truth and its prediction.

    Attributes:
        name: file name without extension.
        size: (width, height) of the thumbnails, pixels.
        photo: thumbnail of the photo: a JPEG as a data URL.
        truth: the thumbnail with the true classes laid over it.
        predicted: the thumbnail with the predicted classes laid over it.
        pixel_accuracy: fraction of the known pixels that are correct.
        miou: mean IoU over the photo's true classes.
        unnamed: fraction of the known pixels without a name.
        shares: the photo's classes, those with most pixels first.
    """

    name: str
    size: tuple[int, int]
    photo: str
    truth: str
    predicted: str
    pixel_accuracy: float
    miou: float
    unnamed: float
    shares: tuple[ClassShare, ...]


@dataclass
class Gallery:
    """The photos with the highest and the lowest pixel accuracy, and the counts of all photos.

    Args:
        count: number of best and of worst photos to keep, at least 1.

    Raises:
        SettingError: a count below 1.
    """

    count: int = 6
    best: list[GalleryPhoto] = field(default_factory=list, init=False)
    worst: list[GalleryPhoto] = field(default_factory=list, init=False)
    accuracies: list[float] = field(default_factory=list, init=False)
    scores: list[float] = field(default_factory=list, init=False)
    correct: list[bool] = field(default_factory=list, init=False)
    confusion: Confusion | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingError(f"a gallery of {self.count} photos: expected 1 or more")

    def add(self, photo: EvaluatedPhoto) -> None:
        """Count an evaluated photo, and keep it if it is among the best or worst so far."""
        self.confusion = self.confusion or Confusion(len(photo.space.names))
        self.confusion.matrix += photo.confusion.matrix
        self.scores += photo.scores
        self.correct += photo.correct
        accuracy = photo.confusion.pixel_accuracy
        assert accuracy is not None  # photos without known pixels are not evaluated
        self.accuracies.append(accuracy)
        good = len(self.best) < self.count or accuracy > self.best[-1].pixel_accuracy
        bad = len(self.worst) < self.count or accuracy < self.worst[-1].pixel_accuracy
        if good or bad:  # thumbnails are drawn for these only
            shown = draw(photo)
            if good:
                self.best = sorted([*self.best, shown], key=lambda one: -one.pixel_accuracy)[: self.count]
            if bad:
                self.worst = sorted([*self.worst, shown], key=lambda one: one.pixel_accuracy)[: self.count]


def draw(photo: EvaluatedPhoto) -> GalleryPhoto:
    """Draw a photo with its truth and its prediction, in the same colours."""
    counts = photo.confusion.counts
    total = counts[1].sum()
    present = np.flatnonzero(counts[1] + counts[2])
    present = present[np.argsort(-(counts[1] + counts[2])[present], kind="stable")]
    names = [photo.space.names[index] for index in present]
    colours = vocabulary_colours(photo.space.names)[present]
    thumbnail = Image.fromarray(photo.photo)
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    colour_of = np.full(len(photo.space.names) + 1, -1, np.int32)  # the last entry is for index -1
    colour_of[present] = np.arange(len(present))
    known = _shrink(photo.truth, thumbnail.size) >= 0
    overlays = []
    for labels in (photo.truth, photo.label_map):
        overlay = paint(np.asarray(thumbnail), colour_of[_shrink(labels, thumbnail.size)], colours, _ALPHA)
        grey = Image.blend(overlay.convert("L").convert("RGB"), Image.new("RGB", thumbnail.size, _UNKNOWN), 0.7)
        overlays.append(Image.composite(overlay, grey, Image.fromarray(known.astype(np.uint8) * np.uint8(255))))
    hits, truth, predicted = counts[:, present] / total
    return GalleryPhoto(
        name=PurePosixPath(photo.pair.key).name,
        size=thumbnail.size,
        photo=_data_url(thumbnail),
        truth=_data_url(overlays[0]),
        predicted=_data_url(overlays[1]),
        pixel_accuracy=float(hits.sum()),
        miou=float(mean(photo.confusion.iou)),
        unnamed=float(photo.confusion.matrix[:, -1].sum() / total),
        shares=tuple(
            ClassShare(name, "#{:02x}{:02x}{:02x}".format(*colour.tolist()), *(float(part) for part in parts))
            for name, colour, *parts in zip(names, swatches(colours, _ALPHA), truth, predicted, hits, strict=True)
        ),
    )


def _shrink(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label map to the (width, height) of a thumbnail with nearest-neighbour sampling."""
    return np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
