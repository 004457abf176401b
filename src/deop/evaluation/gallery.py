"""What a report shows of single photos: collected while a data set is answered, a few pictures kept, not all."""

import io
from base64 import b64encode
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from deop.evaluation.evaluate import Answer
from deop.evaluation.metrics import Confusion, mean
from deop.results.colours import name_colours
from deop.results.overlay import paint

SIDE = 480
"""Longer side of a thumbnail in pixels."""

_UNKNOWN = (118, 118, 126)
"""Colour of what the truth does not know."""


@dataclass(frozen=True)
class Share:
    """A class in one photo."""

    name: str
    colour: str  # "#rrggbb"
    truth: float  # of the photo's known pixels that are it, in [0, 1]
    answer: float  # that were called it
    hit: float  # that are it and were called it


@dataclass(frozen=True)
class Shown:
    """A photo beside its truth and its answer.

    Attributes:
        name: of the photo, without ending.
        size: (width, height) of the thumbnails, pixels.
        photo: JPEG, as a data URL; so are the other two.
        truth: the same with the true classes laid over it.
        answer: the same with the answered ones.
        pixel_accuracy: of its known pixels.
        miou: over the classes that it truly has.
        unnamed: share of its known pixels that got no name.
        shares: of its classes, those with most pixels first.
    """

    name: str
    size: tuple[int, int]
    photo: str
    truth: str
    answer: str
    pixel_accuracy: float
    miou: float
    unnamed: float
    shares: tuple[Share, ...]


@dataclass
class Gallery:
    """The best and the worst photos by pixel accuracy, and what all of them add up to.

    Args:
        most: photos kept of each kind.
    """

    most: int = 6
    best: list[Shown] = field(default_factory=list, init=False)
    worst: list[Shown] = field(default_factory=list, init=False)
    accuracies: list[float] = field(default_factory=list, init=False)
    scores: list[float] = field(default_factory=list, init=False)
    right: list[bool] = field(default_factory=list, init=False)
    confusion: Confusion | None = field(default=None, init=False)

    def add(self, answer: Answer) -> None:
        """Look at one photo's answer."""
        self.confusion = self.confusion or Confusion(len(answer.space.names))
        self.confusion.matrix += answer.confusion.matrix
        self.scores += answer.scores
        self.right += answer.right
        accuracy = answer.confusion.pixel_accuracy
        assert accuracy is not None  # photos of which nothing is known are not answered
        self.accuracies.append(accuracy)
        good = len(self.best) < self.most or accuracy > self.best[-1].pixel_accuracy
        bad = len(self.worst) < self.most or accuracy < self.worst[-1].pixel_accuracy
        if good or bad:  # pictures are made of those alone
            shown = show(answer)
            if good:
                self.best = sorted([*self.best, shown], key=lambda one: -one.pixel_accuracy)[: self.most]
            if bad:
                self.worst = sorted([*self.worst, shown], key=lambda one: one.pixel_accuracy)[: self.most]


def show(answer: Answer) -> Shown:
    """One photo with its truth and its answer, in the same colours."""
    counts = answer.confusion.counts
    whole = counts[1].sum()
    there = np.flatnonzero(counts[1] + counts[2])
    there = there[np.argsort(-(counts[1] + counts[2])[there], kind="stable")]
    names = [answer.space.names[index] for index in there]
    colours = name_colours(names)
    photo = Image.fromarray(answer.photo)
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    place = np.full(len(answer.space.names) + 1, -1, np.int32)
    place[there] = np.arange(len(there))
    known = _shrink(answer.truth, photo.size) >= 0
    painted = []
    for labels in (answer.truth, answer.label_map):
        picture = paint(np.asarray(photo), place[_shrink(labels, photo.size)], colours, 0.62)
        grey = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", photo.size, _UNKNOWN), 0.7)
        painted.append(Image.composite(picture, grey, Image.fromarray(known.astype(np.uint8) * np.uint8(255))))
    hit, truth, named = counts[:, there] / whole
    return Shown(
        name=answer.pair.photo.stem,
        size=photo.size,
        photo=_data_url(photo),
        truth=_data_url(painted[0]),
        answer=_data_url(painted[1]),
        pixel_accuracy=float(hit.sum()),
        miou=float(mean(answer.confusion.iou)),
        unnamed=float(answer.confusion.matrix[:, -1].sum() / whole),
        shares=tuple(
            Share(name, "#{:02x}{:02x}{:02x}".format(*colour.tolist()), *(float(part) for part in parts))
            for name, colour, *parts in zip(names, colours, truth, named, hit, strict=True)
        ),
    )


def _shrink(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at the size of a thumbnail: every pixel has one of those that it stands for."""
    return np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
