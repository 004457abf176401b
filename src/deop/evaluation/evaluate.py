"""A model on a data set: every photo named, every pixel counted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deop import __version__
from deop.data.folder import LabelledFolder
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.evaluation.metrics import Confusion, harmonic_mean, mean
from deop.model import DeOP
from deop.two_stream import TwoStream
from deop.vocabulary import Vocabulary


@dataclass(frozen=True)
class Protocol:
    """What is asked of the model.

    Attributes:
        proposals: "model": the model's own; "oracle": the true masks, one a class and photo.
        names: "all": every name of the data set; "present": only those in the photo's truth.
        severance: None: the model's own.
        classifier: "one-pass" or "two-stream".
        anchors: None: the model's own.
        unseen: names that training did not see, for ``seen_miou``, ``unseen_miou`` and ``hiou``.
        limit: photos, the first of them; None: all.
    """

    proposals: str = "model"
    names: str = "all"
    severance: str | Severance | None = None
    classifier: str | TwoStream = "one-pass"
    anchors: str | None = None
    unseen: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.proposals, ("model", "oracle"), "proposals"),
            (self.names, ("all", "present"), "names"),
        ):
            if value not in known:
                raise SettingError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"a limit of {self.limit} photos leaves none: give 1 or more")


def evaluate(
    model: DeOP,
    data: LabelledFolder,
    protocol: Protocol | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Name every photo of a data set and compare with its truth.

    IoU is accumulated over the whole set; classes that the truth does not have are None and not averaged. Every pixel
    that a mask claims is named, whatever its score (threshold 0); one without a name (-1) is a miss.

    Args:
        model: with a proposer, unless the true masks are used.
        data: the photos.
        protocol: what is asked.
        progress: called with photos done and photos in all.

    Returns:
        JSON's own types: ``miou``, ``pixel_accuracy``, ``mean_accuracy``, ``per_class``, ``seen_miou``,
        ``unseen_miou``, ``hiou``, ``region_accuracy`` (of true masks: the share named rightly), ``images`` (those
        with any truth), ``seconds_per_image``, and what was asked of which model.

    Raises:
        SettingError: unseen names that the data set does not have.
        DataError: a photo or mask that does not fit, by name.
    """
    protocol = protocol or Protocol()
    vocabulary = model.vocabulary(data.names)
    names = vocabulary.names
    if strange := sorted(set(protocol.unseen) - set(names)):
        raise SettingError(f"unseen names that the data set does not have: {', '.join(strange)}")
    confusion = Confusion(len(names))
    hits = regions = counted = 0
    seconds = 0.0
    pairs = data.pairs[: protocol.limit]
    for done, pair in enumerate(pairs):
        truth = data.labels(pair)
        present = np.unique(truth[truth >= 0])
        asked = np.arange(len(names)) if protocol.names == "all" else present
        if not len(present):
            continue
        counted += 1
        masks = np.stack([truth == label for label in present]) if protocol.proposals == "oracle" else None
        started = time.perf_counter()
        chosen = _some(vocabulary, asked)
        look = model.look(
            [pair.photo],
            [masks],
            severance=protocol.severance,
            anchors=protocol.anchors,
            classifier=protocol.classifier,
        )[0]
        found = model.name(look, chosen, threshold=0.0)
        seconds += time.perf_counter() - started
        predicted = np.append(asked, -1)[found.label_map]
        confusion.add(truth, predicted)
        if masks is not None:
            votes = model.votes(look, model.embed(chosen))[:, :-1].argmax(1).cpu().numpy()
            hits, regions = hits + int((asked[votes] == present).sum()), regions + len(present)
        if progress:
            progress(done + 1, len(pairs))
    iou = confusion.iou
    unseen = np.isin(names, protocol.unseen)
    split = bool(protocol.unseen)
    seen_miou, unseen_miou = (mean(iou[part]) if split else None for part in (~unseen, unseen))
    return {
        "miou": mean(iou),
        "pixel_accuracy": confusion.pixel_accuracy,
        "mean_accuracy": mean(confusion.accuracy),
        "per_class": {name: None if np.isnan(value) else float(value) for name, value in zip(names, iou, strict=True)},
        "seen_miou": seen_miou,
        "unseen_miou": unseen_miou,
        "hiou": harmonic_mean(seen_miou, unseen_miou),
        "region_accuracy": hits / regions if regions else None,
        "regions": regions,
        "images": counted,
        "images_without_truth": len(pairs) - counted,
        "seconds_per_image": seconds / max(counted, 1),
        "data": str(data.root),
        "model": model.card.name,
        "severance": Severance.parse(protocol.severance, model.settings.severance).kind,
        "classifier": protocol.classifier if isinstance(protocol.classifier, str) else "two-stream",
        "proposals": protocol.proposals,
        "names": protocol.names,
        "deop": __version__,
    }


def _some(vocabulary: Vocabulary, chosen: Sequence[int] | np.ndarray) -> Vocabulary:
    """Only those names of a vocabulary."""
    if len(chosen) == len(vocabulary.names):
        return vocabulary
    isthing = vocabulary.isthing
    return Vocabulary(
        tuple(vocabulary.synonyms[index] for index in chosen),
        vocabulary.background,
        vocabulary.templates,
        None if isthing is None else tuple(isthing[index] for index in chosen),
    )
