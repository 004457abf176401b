"""What is asked of a model on a data set, and which pixels count: the field's protocols by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from deop.data.folder import LabelledFolder, Pair, read_mask
from deop.encoders.severance import Severance
from deop.errors import DataError, SettingError
from deop.files import replacing
from deop.model import DeOP
from deop.regions.two_stream import TwoStream
from deop.text.vocabulary import Vocabulary

KINDS = ("plain", "generalized", "cross-dataset", "with-background")

BACKGROUND = "background"
"""The class of pixels that none of the names is for."""


@dataclass(frozen=True)
class Protocol:
    """What is asked of the model.

    Attributes:
        proposals: "model": the model's own; "oracle": the true masks, one a class and photo.
        names: "all": every name of the data set; "present": only those in the photo's truth.
        severance: None: the model's own.
        classifier: "one-pass" or "two-stream".
        anchors: None: the model's own.
        unseen: names that training did not see, for ``seen_miou``, ``unseen_miou`` and ``hiou``. Empty: those that
            the data set marks ``"seen": false``, unless the protocol is another than plain and generalized.
        limit: photos, the first of them; None: all.
        kind: one of ``KINDS``, or None: "generalized" where there are unseen names and all names are asked for, else
            "plain".

            * ``plain``: mIoU over the names, nothing said of what training saw.
            * ``generalized``: all names in one label space, seen and unseen classes averaged apart, and hIoU.
            * ``cross-dataset``: all names of a data set that was not trained on; names that the model knows to have
              been trained with (``Calibration.trained_names``) and new ones are averaged apart.
            * ``with-background``: what none of the names is for counts as a class more, and a pixel left without a
              name is the answer "background". Its pixels are those of a class listed as "background", else those with
              id 0.
        threshold: least score of a named pixel, in [0, 1]. None: 0, and with background the model's own.
        background: further names that compete and, where they win, leave a pixel without a name.
    """

    proposals: str = "model"
    names: str = "all"
    severance: str | Severance | None = None
    classifier: str | TwoStream = "one-pass"
    anchors: str | None = None
    unseen: tuple[str, ...] = ()
    limit: int | None = None
    kind: str | None = None
    threshold: float | None = None
    background: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", "generalized" if self.unseen and self.names == "all" else "plain")
        for value, known, what in (
            (self.proposals, ("model", "oracle"), "proposals"),
            (self.names, ("all", "present"), "names"),
            (self.kind, KINDS, "protocol"),
        ):
            if value not in known:
                raise SettingError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"a limit of {self.limit} photos leaves none: give 1 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingError(f"threshold {self.threshold} is not in [0, 1]")
        if self.kind != "plain" and self.names == "present":
            raise SettingError(f"the protocol {self.kind} asks for all names: leave out names='present'")
        if self.kind not in ("plain", "generalized") and self.unseen:
            raise SettingError(f"unseen names belong to the protocol generalized, not to {self.kind}")
        if self.kind == "with-background" and self.proposals == "oracle":
            raise SettingError("true masks tell where the background is: with-background needs the model's own")


@dataclass(frozen=True)
class LabelSpace:
    """The K classes that are counted, and the names that are asked for: the same, but for a background class.

    Attributes:
        data: the data set.
        vocabulary: of all names that are asked for, the first of the K.
        names: K.
        things: (K,) bool, which are countable things: as the list of classes says, else guessed from the name.
        ids: (K,) id of each class in the masks.
        places: (classes of the data set + 1,) which of the K each class of its list is; the last, -1, serves -1.
        unseen: names of the K that training did not see; empty where that is not known.
    """

    data: LabelledFolder
    vocabulary: Vocabulary
    names: tuple[str, ...]
    things: np.ndarray
    ids: np.ndarray
    places: np.ndarray
    unseen: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: LabelledFolder, model: DeOP, protocol: Protocol) -> "LabelSpace":
        """The label space of a data set under a protocol.

        Raises:
            SettingError: unseen names that the data set does not have, or no way to say "background".
        """
        classes, background = list(data.classes), protocol.kind == "with-background"
        ids = [entry.id for entry in classes]
        if background:
            own = next((entry for entry in classes if entry.name.split("|")[0].strip() == BACKGROUND), None)
            if own is None and 0 in ids:
                raise SettingError(
                    f"{data.root} has no background: no class is listed as {BACKGROUND!r}, and id 0 is "
                    f"{classes[ids.index(0)].name!r}. Choose another protocol."
                )
            least = model.settings.threshold if protocol.threshold is None else protocol.threshold
            if not least and not protocol.background:
                raise SettingError(
                    "this model names every pixel: with-background needs a threshold above 0 (--threshold) or names of "
                    'what else there is (--background "sky, wall")'
                )
            classes = [entry for entry in classes if entry is not own]
            ids = [*(entry.id for entry in classes), 0 if own is None else own.id]
        vocabulary = model.vocabulary([entry.name for entry in classes], background=protocol.background)
        known = [entry.isthing for entry in classes]
        things = tuple(
            guess if flag is None else bool(flag) for guess, flag in zip(vocabulary.things, known, strict=True)
        )
        names = (*vocabulary.names, BACKGROUND) if background else vocabulary.names
        unseen = unseen_names(data, protocol)
        return cls(
            data,
            replace(vocabulary, isthing=things),
            names,
            things=np.array((*things, False)[: len(names)]),
            ids=np.array(ids),
            places=np.array([*(ids.index(entry.id) for entry in data.classes), -1], np.int32),
            unseen=tuple(name for name, entry in zip(vocabulary.names, classes, strict=True) if entry.name in unseen),
        )

    @property
    def has_background(self) -> bool:
        """Whether the last class is what none of the names is for."""
        return len(self.names) > len(self.vocabulary.names)

    def truth(self, pair: Pair) -> np.ndarray:
        """The class of each pixel of a photo, (H, W) int32, -1 where it is to be ignored.

        Raises:
            DataError: a mask that does not fit, by name.
        """
        truth = self.places[self.data.labels(pair)]
        if self.has_background and 0 not in {entry.id for entry in self.data.classes}:
            truth[(truth < 0) & (read_mask(pair.mask) == 0)] = len(self.names) - 1
        return truth

    def asked(self, truth: np.ndarray, protocol: Protocol) -> np.ndarray:
        """Indices of the names that are asked for in a photo."""
        every = np.arange(len(self.vocabulary.names))
        return every if protocol.names == "all" else np.unique(truth[truth >= 0])

    def answer(self, label_map: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """A label map of the asked names as one of the classes, (H, W) int32, -1 where there is none."""
        none = len(self.names) - 1 if self.has_background else -1
        return np.append(asked, none).astype(np.int32)[label_map]

    def save(self, answer: np.ndarray, path: Path) -> None:
        """Write an answer as a PNG of the data set's own ids; 255 (65535 where that is taken) where there is no name.

        Raises:
            DataError: ids above 65534.
            OutputError: a place that cannot be written.
        """
        top = int(self.ids.max())
        if top > 65534:
            raise DataError(f"{self.data.root} lists id {top}: a PNG holds ids up to 65534")
        kind, none = (np.uint8, 255) if top < 255 else (np.uint16, 65535)
        values = np.append(self.ids, none).astype(kind)[answer]
        with replacing(path) as file:
            Image.fromarray(values).save(file, "PNG")


def unseen_names(data: LabelledFolder, protocol: Protocol) -> set[str]:
    """Names of a data set, as its list has them, that training did not see; empty where that is not known.

    Raises:
        SettingError: names that the data set does not have, or none where the protocol needs some.
    """
    if protocol.kind not in ("plain", "generalized"):
        return set()
    found = {entry.name for entry in data.classes if entry.seen is False}
    if protocol.unseen:
        known = {text: name for name in data.names for text in (" ".join(name.split("|")[0].split()), name)}
        if strange := sorted(set(protocol.unseen) - known.keys()):
            raise SettingError(f"unseen names that the data set does not have: {', '.join(strange)}")
        found = {known[name] for name in protocol.unseen}
    if protocol.kind == "generalized" and not found:
        raise SettingError(
            "the protocol generalized needs the names that training did not see: --unseen FILE, or "
            f'"seen": false in {data.root}\'s classes.json'
        )
    return found


def some_names(vocabulary: Vocabulary, chosen: Sequence[int] | np.ndarray) -> Vocabulary:
    """Only those names of a vocabulary."""
    if len(chosen) == len(vocabulary.names):
        return vocabulary
    isthing = vocabulary.isthing
    return replace(
        vocabulary,
        synonyms=tuple(vocabulary.synonyms[index] for index in chosen),
        isthing=None if isthing is None else tuple(isthing[index] for index in chosen),
    )
