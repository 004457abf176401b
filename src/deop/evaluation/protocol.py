"""Evaluation protocols of the field: what a model is asked, and which pixels count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deop.data.labelled import LabelledData, Pair
from deop.errors import DataError, SettingError
from deop.files import replacing
from deop.severance import Severance
from deop.surface import ModelSurface
from deop.text.everything_else import means_everything_else
from deop.text.vocabulary import Vocabulary, name_key

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.regions.two_stream import TwoStream

KINDS = ("plain", "generalized", "cross-dataset", "with-background")

BACKGROUND = "background"
"""The class of pixels that belong to none of the names."""


@dataclass(frozen=True)
class Protocol:
    """What the model is asked.

    Attributes:
        proposals: "model": the model's own masks; "oracle": the true masks, one per class and photo.
        names: "all": all names of the data set; "present": only the names in the photo's truth.
        severance: severance of the encoder; None: the model's own.
        classifier: "one-pass" or "two-stream".
        anchors: "decoder" or "pool"; None: the model's own.
        unseen: names that training did not see, for ``seen_miou``, ``unseen_miou`` and ``hiou``. Empty: the names that
            ``classes.json`` marks ``"seen": false``, if ``kind`` is "plain" or "generalized".
        limit: evaluate only this many photos, the first ones; None: all.
        kind: one of ``KINDS``. None: "generalized" if there are unseen names and all names are asked, else "plain".

            * ``plain``: mIoU over the names, whether training saw them or not.
            * ``generalized``: all names compete; seen and unseen classes are also averaged separately, with hIoU.
            * ``cross-dataset``: a data set that was not trained on; names that the model was trained with
              (``Calibration.trained_names``) and new names are also averaged separately.
            * ``with-background``: pixels that belong to none of the names are an additional class, which is predicted
              where a pixel gets no name. They are the pixels of a class listed as "background" (or "other", ...), else
              those with id 0.
        threshold: minimum score of a pixel that gets a name, in [0, 1]. None: 0, and the model's own with background.
        background: additional names that compete; pixels that they win get no name.
        bank: examples of the names, as in ``DeOP.segment``; None: words alone.
        bank_weight: as in ``DeOP.segment``.

    Raises:
        SettingError: an unknown value, or options that contradict each other.
    """

    proposals: str = "model"
    names: str = "all"
    severance: str | Severance | None = None
    classifier: "str | TwoStream" = "one-pass"
    anchors: str | None = None
    unseen: tuple[str, ...] = ()
    limit: int | None = None
    kind: str | None = None
    threshold: float | None = None
    background: tuple[str, ...] = ()
    bank: "Bank | None" = None
    bank_weight: float | None = None

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", "generalized" if self.unseen and self.names == "all" else "plain")
        for value, choices, what in (
            (self.proposals, ("model", "oracle"), "proposals"),
            (self.names, ("all", "present"), "names"),
            (self.kind, KINDS, "protocol"),
        ):
            if value not in choices:
                raise SettingError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")
        for option, names in (("unseen", self.unseen), ("background", self.background)):
            if isinstance(names, (str, set, frozenset)):
                raise SettingError(f"{option} is {names!r}: give a list of names")
            object.__setattr__(self, option, tuple(names))
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"limit is {self.limit}: expected 1 or more photos")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingError(f"threshold is {self.threshold}: expected a number in [0, 1]")
        if self.kind != "plain" and self.names == "present":
            raise SettingError(f"the protocol {self.kind} asks for all names: omit names='present'")
        if self.kind not in ("plain", "generalized") and self.unseen:
            raise SettingError(
                f"the protocol {self.kind} does not use unseen names: omit them, or choose the protocol generalized"
            )
        if self.kind == "with-background" and self.proposals == "oracle":
            raise SettingError(
                "the protocol with-background needs the model's own masks, since the true masks show where the "
                "background is: omit proposals='oracle'"
            )


@dataclass(frozen=True)
class LabelSpace:
    """The K classes that are scored, and the names that are asked: the same, except for a background class.

    Attributes:
        data: the data set.
        vocabulary: all names that are asked; they are the first of the K classes.
        names: names of the K classes.
        things: (K,) bool, which classes are countable things, from ``classes.json`` or else guessed from the name.
        ids: (K,) id of each class in the masks.
        index_of: (classes of the data set + 1,) index among the K of each class of the data set; the last entry, -1,
            is for index -1.
        unseen: names that training did not see; empty if unknown.
    """

    data: LabelledData
    vocabulary: Vocabulary
    names: tuple[str, ...]
    things: np.ndarray
    ids: np.ndarray
    index_of: np.ndarray
    unseen: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: LabelledData, model: ModelSurface, protocol: Protocol) -> "LabelSpace":
        """The label space of a data set under a protocol.

        Raises:
            SettingError: unseen names that the data set does not have, or a model that cannot predict "background".
        """
        classes, with_background = list(data.classes), protocol.kind == "with-background"
        ids = [entry.id for entry in classes]
        if with_background:
            background = next((entry for entry in classes if means_everything_else(entry.name.split("|")[0])), None)
            if background is None and 0 in ids:
                raise SettingError(
                    f"{data.root} has no background: no class is named {BACKGROUND!r}, and id 0 is "
                    f"{classes[ids.index(0)].name!r}. Choose another protocol."
                )
            if not threshold_of(model, protocol) and not protocol.background:
                raise SettingError(
                    "this model names every pixel, so it never predicts background: set a threshold above 0 "
                    '(--threshold) or background names (--background "sky, wall")'
                )
            classes = [entry for entry in classes if entry is not background]
            ids = [*(entry.id for entry in classes), 0 if background is None else background.id]
        vocabulary = model.vocabulary(
            [entry.name for entry in classes],
            background=protocol.background,
            bank=protocol.bank,
            bank_weight=protocol.bank_weight,
        )
        listed = [entry.isthing for entry in classes]
        things = tuple(
            guess if isthing is None else bool(isthing)
            for guess, isthing in zip(vocabulary.things, listed, strict=True)
        )
        names = (*vocabulary.names, BACKGROUND) if with_background else vocabulary.names
        unseen = unseen_names(data, protocol)
        return cls(
            data,
            replace(vocabulary, isthing=things),
            names,
            things=np.array((*things, False)[: len(names)]),
            ids=np.array(ids),
            index_of=np.array([*(ids.index(entry.id) for entry in data.classes), -1], np.int32),
            unseen=tuple(name for name, entry in zip(vocabulary.names, classes, strict=True) if entry.name in unseen),
        )

    @property
    def has_background(self) -> bool:
        """Whether the last class is the background."""
        return len(self.names) > len(self.vocabulary.names)

    def truth(self, pair: Pair) -> np.ndarray:
        """The true class of each pixel of a photo: (H, W) int32, -1 for pixels to ignore.

        Raises:
            DataError: a mask that cannot be used.
        """
        return self.truth_of(self.data.ids(pair))

    def truth_of(self, ids: np.ndarray) -> np.ndarray:
        """The true classes of pixels, as ``truth`` gives them, from their ids in the mask."""
        truth = self.index_of[self.data.labels_of(ids)]
        if self.has_background and 0 not in {entry.id for entry in self.data.classes}:
            truth[(truth < 0) & (ids == 0)] = len(self.names) - 1
        return truth

    def requested(self, truth: np.ndarray, protocol: Protocol) -> np.ndarray:
        """Indices of the names that the model is asked for in a photo, in ascending order."""
        every = np.arange(len(self.vocabulary.names))
        return every if protocol.names == "all" else np.unique(truth[truth >= 0])

    def predicted(self, label_map: np.ndarray, requested: np.ndarray) -> np.ndarray:
        """A label map of the requested names as a map of the K classes: (H, W) int32, -1 for no class."""
        none = len(self.names) - 1 if self.has_background else -1
        return np.append(requested, none).astype(np.int32)[label_map]

    def save(self, predicted: np.ndarray, path: Path) -> None:
        """Write a map of the K classes as a PNG of the data set's ids; pixels without class are 255, or 65535.

        65535 is used if the data set has ids of 255 or more.

        Raises:
            DataError: ids above 65534.
            OutputError: the file cannot be written.
        """
        top = int(self.ids.max())
        if top > 65534:
            raise DataError(f"{self.data.root} lists id {top}: a PNG stores ids up to 65534")
        kind, none = (np.uint8, 255) if top < 255 else (np.uint16, 65535)
        values = np.append(self.ids, none).astype(kind)[predicted]
        with replacing(path) as file:
            Image.fromarray(values).save(file, "PNG")


def threshold_of(model: ModelSurface, protocol: Protocol) -> float:
    """The minimum score of a pixel that gets a name."""
    if protocol.threshold is not None:
        return protocol.threshold
    return model.settings.threshold if protocol.kind == "with-background" else 0.0


def unseen_names(data: LabelledData, protocol: Protocol) -> set[str]:
    """Names of a data set, as in ``classes.json``, that training did not see; empty if unknown.

    Raises:
        SettingError: names that the data set does not have, or no names for a protocol that needs some.
    """
    if protocol.kind not in ("plain", "generalized"):
        return set()
    unseen = {entry.name for entry in data.classes if entry.seen is False}
    if protocol.unseen:
        known = {name_key(text): name for name in data.names for text in (name.split("|")[0], name)}
        if unknown := sorted(name for name in set(protocol.unseen) if name_key(name) not in known):
            raise SettingError(f"{data.root} does not have these unseen names: {', '.join(unknown)}")
        unseen = {known[name_key(name)] for name in protocol.unseen}
    if protocol.kind == "generalized" and not unseen:
        raise SettingError(
            "the protocol generalized needs the names that training did not see: give --unseen FILE, or mark them "
            f'"seen": false in {data.root}\'s classes.json'
        )
    return unseen


def select_names(vocabulary: Vocabulary, indices: Sequence[int] | np.ndarray) -> Vocabulary:
    """A vocabulary with only some of the names, by their indices."""
    if len(indices) == len(vocabulary.names):
        return vocabulary
    isthing = vocabulary.isthing
    return replace(
        vocabulary,
        synonyms=tuple(vocabulary.synonyms[index] for index in indices),
        isthing=None if isthing is None else tuple(isthing[index] for index in indices),
    )
