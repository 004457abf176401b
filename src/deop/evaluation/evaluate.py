"""Evaluates a model on a data set, whatever engine computes it. No torch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deop._version import __version__
from deop.arrays import to_float32
from deop.data.entries import image_source
from deop.data.labelled import LabelledData, Pair
from deop.errors import DataError
from deop.evaluation.average_precision import DetectionTally, match_detections, precision_scores
from deop.evaluation.bootstrap import Bootstrap, PhotoSums, Tally
from deop.evaluation.metrics import Confusion, iou, mean, or_none, ratio, semantic_scores
from deop.evaluation.panoptic_quality import count_matches, panoptic_scores
from deop.evaluation.proposal_quality import WIDTH, count_found, mask_fit, proposal_scores
from deop.evaluation.protocol import LabelSpace, Protocol, select_names, threshold_of
from deop.evaluation.truth import TrueSegments, components, panoptic_truth
from deop.evaluation.uncounted import Uncounted
from deop.results.segmentation import Segmentation
from deop.surface import ModelSurface
from deop.text.vocabulary import Vocabulary

__all__ = ["EvaluatedPhoto", "Protocol", "evaluate"]


@dataclass(frozen=True)
class EvaluatedPhoto:
    """The prediction for one photo of a data set, and its truth.

    Attributes:
        pair: the photo and its mask.
        photo: (H, W, 3) uint8.
        space: the classes.
        truth: (H, W) int32, index of the true class, -1 for pixels to ignore.
        label_map: (H, W) int32, index of the predicted class, -1 for none.
        confusion: pixel counts of this photo.
        scores: scores of the predicted segments.
        correct: whether most of the known pixels of each segment truly have its name.
    """

    pair: Pair
    photo: np.ndarray
    space: LabelSpace
    truth: np.ndarray
    label_map: np.ndarray
    confusion: Confusion
    scores: tuple[float, ...]
    correct: tuple[bool, ...]


def evaluate(
    model: ModelSurface,
    data: LabelledData,
    protocol: Protocol | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    bootstrap: Bootstrap | None = None,
    watch: Callable[[EvaluatedPhoto], None] | None = None,
) -> dict[str, Any]:
    """Segment every photo of a data set and compare the result with the truth.

    IoU is accumulated over the whole data set. Classes without true pixels are None and are not averaged. Every pixel
    inside some mask gets a name, whatever its score, unless the protocol has a threshold. A pixel without a name (-1)
    is an error.

    Args:
        model: the model. It needs a proposer, unless the true masks are used.
        data: the photos and their masks.
        protocol: what the model is asked; None: ``Protocol()``.
        progress: called with the number of finished photos and of all photos.
        bootstrap: settings of the intervals; None: ``Bootstrap()``.
        watch: called with every evaluated photo, to save or draw it. Evaluated photos are not kept.

    Returns:
        Scores and settings as JSON values; docs/evaluation.md lists them.

    Raises:
        SettingError: options that do not fit the model or the data set, such as unknown unseen names.
        DataError: a photo or mask that cannot be used, or no pixel of any photo counts.
    """
    protocol, bootstrap = protocol or Protocol(), bootstrap or Bootstrap()
    model.check_encoding(protocol.severance, protocol.anchors, protocol.classifier)
    space = LabelSpace.of(data, model, protocol)
    counts = _Counts(space, protocol)
    pairs = data.pairs[: protocol.limit]
    for done, pair in enumerate(pairs):
        photo = counts.add(model, pair)
        if photo and watch:
            watch(photo)
        if progress:
            progress(done + 1, len(pairs))
    if not len(counts.classes):
        raise DataError(
            f"{data.root}: none of the {len(pairs)} photos has a pixel of a class, so that there is nothing to "
            "evaluate: compare the ids of the masks with those of classes.json"
        )
    return counts.summary(bootstrap, model) | {
        "images": len(counts.classes),
        "images_without_truth": len(pairs) - len(counts.classes),
        "seconds_per_image": counts.seconds / len(counts.classes),
        **counts.uncounted.summary(),
        "protocol": protocol.kind,
        "data": str(data.root),
        "model": model.card.name,
        "engine": model.engine,
        "precision": model.precision,
        **{key: counts.encoding.get(key) for key in ("severance", "classifier", "anchors")},
        "partition": model.settings.partition,
        "prior": model.settings.prior,
        "scores": "softmax" if model.settings.logit_bias is None else "sigmoid",
        "proposals": protocol.proposals,
        "names": protocol.names,
        "threshold": threshold_of(model, protocol),
        "background": list(protocol.background),
        **({} if protocol.bank is None else {"bank": _described(protocol)}),
        "everything_else": _name_or_none(space.vocabulary),
        "confidence": bootstrap.confidence,
        "resamples": bootstrap.resamples,
        "seed": bootstrap.seed,
        "deop": __version__,
    }


def _described(protocol: Protocol) -> dict[str, Any]:
    """The bank of a protocol, as JSON values."""
    from deop.bank.scoring import check_weight

    bank = protocol.bank
    assert bank is not None
    names = [name for name in bank.names if name]
    return {
        "digest": bank.digest[:16], "weight": check_weight(protocol.bank_weight), "names": names,
        "photos": len(bank.photos), "regions": len(bank),
    }  # fmt: skip


def _name_or_none(vocabulary: Vocabulary) -> str | None:
    """The name that means everything else, such as "background": it gets the pixels that no other name gets."""
    return None if vocabulary.everything_else is None else vocabulary.names[vocabulary.everything_else]


@dataclass
class _Counts:
    """Counts of every photo so far."""

    space: LabelSpace
    protocol: Protocol
    seconds: float = 0.0
    encoding: dict[str, Any] = field(default_factory=dict)
    classes: PhotoSums = field(init=False)
    regions: PhotoSums = field(init=False)
    panoptic: PhotoSums = field(init=False)
    instances: DetectionTally = field(default_factory=DetectionTally)
    proposals: PhotoSums = field(init=False)
    photos_with: np.ndarray = field(init=False)
    uncounted: Uncounted = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.space.names)
        self.classes, self.panoptic = PhotoSums((3, count)), PhotoSums((4, count))
        self.regions, self.proposals = PhotoSums((2,)), PhotoSums((WIDTH,))
        self.photos_with = np.zeros(count, np.int64)
        self.uncounted = Uncounted({entry.id for entry in self.space.data.classes})
        self._panoptic_truth = panoptic_truth(self.space.data, self.space.ids)

    def add(self, model: ModelSurface, pair: Pair) -> EvaluatedPhoto | None:
        """Evaluate a photo and count its pixels and segments; None if its truth is unknown everywhere."""
        space, protocol = self.space, self.protocol
        ids = space.data.ids(pair)
        truth = space.truth_of(ids)
        self.uncounted.add(pair.key, ids, truth)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            return None
        requested = space.requested(truth, protocol)
        masks = np.stack([truth == label for label in present]) if protocol.proposals == "oracle" else None
        started = time.perf_counter()
        names = select_names(space.vocabulary, requested)
        encoded = model.encode(
            [image_source(pair.photo)],
            [masks],
            severance=protocol.severance,
            anchors=protocol.anchors,
            classifier=protocol.classifier,
        )[0]
        result = model.label(encoded, names, threshold=threshold_of(model, protocol))
        self.seconds += time.perf_counter() - started
        self.encoding = encoded.settings
        photo = _compare(pair, space, truth, result, requested)
        self.classes.add(photo.confusion.counts)
        self.photos_with[present] += 1
        if masks is not None:
            predicted = to_float32(model.class_probabilities(encoded, names))[:, :-1].argmax(1)
            self.regions.add(np.array([(requested[predicted] == present).sum(), len(present)]))
        else:
            segments = self._true_segments(pair, truth)
            self.proposals.add(count_found(*mask_fit(encoded.masks, encoded.canvas, segments)))
            if self._panoptic_truth:
                self._count_panoptic(model, encoded, requested, segments)
        return photo

    def _true_segments(self, pair: Pair, truth: np.ndarray) -> TrueSegments:
        if self._panoptic_truth:
            return self._panoptic_truth.segments(pair, (truth.shape[0], truth.shape[1]))
        if self.space.has_background:
            truth = np.where(truth == len(self.space.names) - 1, -1, truth)
        return components(truth, self.space.things)

    def _count_panoptic(self, model: ModelSurface, encoded: Any, requested: np.ndarray, truth: TrueSegments) -> None:
        names, things = select_names(self.space.vocabulary, requested), self.space.things
        result = model.label(encoded, names, mode="panoptic")
        classes = requested[[segment.class_id for segment in result.segments]]
        self.panoptic.add(count_matches(truth, result.segment_map, classes, len(self.space.names)))
        if not any(names.things):  # there is nothing that instance mode could find
            self.instances.add(match_detections(truth, [], [], things))
            return
        result = model.label(encoded, names, mode="instance")
        classes = requested[[segment.class_id for segment in result.segments]]
        self.instances.add(match_detections(truth, result.segments, classes, things))

    def summary(self, bootstrap: Bootstrap, model: ModelSurface) -> dict[str, Any]:
        """The scores and their intervals, as JSON values."""
        names, photos, intervals = self.space.names, len(self.classes), {}

        def scored(
            sums: Tally, score: Callable[[np.ndarray], dict[str, np.ndarray]], prefix: str = ""
        ) -> dict[str, Any]:
            total = score(sums.total())
            bounds = bootstrap.interval(bootstrap.draw(sums, lambda part: np.stack(list(score(part).values()), -1)))
            for key, low, high in zip(total, *bounds.tolist(), strict=True):
                intervals[prefix + key] = None if np.isnan(low) else [low, high]
            return {key: or_none(value) for key, value in total.items()}

        unseen = np.isin(names, self.space.unseen) if self.space.unseen else None
        semantic = dict.fromkeys(("seen_miou", "unseen_miou", "hiou"))
        semantic |= scored(self.classes, lambda counts: semantic_scores(counts, unseen))
        trained = self._trained(model)
        if trained is not None:
            parts = {"trained_names_miou": trained, "new_names_miou": ~trained}
            semantic |= scored(
                self.classes, lambda counts: {key: mean(iou(counts)[..., p]) for key, p in parts.items()}
            )
        region = scored(self.regions, lambda part: {"region_accuracy": ratio(part[..., 0], part[..., 1])})
        quality: dict[str, Any] | None = None
        panoptic: dict[str, Any] | None = None
        instance: dict[str, Any] | None = None
        if len(self.proposals):
            quality = scored(self.proposals, lambda part: proposal_scores(part, photos), "proposal_quality.")
            quality |= {"segments": int(quality["segments"] or 0)}
            quality["truth"] = "panoptic" if self._panoptic_truth else "components"
            del intervals["proposal_quality.segments"], intervals["proposal_quality.proposals_per_image"]
        if len(self.panoptic):
            things = self.space.things
            panoptic = scored(self.panoptic, lambda part: panoptic_scores(part, things), "panoptic_quality.")
            instance = scored(self.instances, precision_scores, "instance_quality.")
        bounds = bootstrap.interval(bootstrap.draw(self.classes, iou)).T
        per_class = iou(self.classes.total())
        return {
            **semantic,
            "region_accuracy": region["region_accuracy"],
            "regions": int(self.regions.total()[1]),
            "per_class": {name: or_none(value) for name, value in zip(names, per_class, strict=True)},
            "per_class_intervals": {  # a class in only one photo has no interval
                name: pair.tolist() if count > 1 else None
                for name, count, pair in zip(names, self.photos_with, bounds, strict=True)
            },
            "per_class_images": dict(zip(names, self.photos_with.tolist(), strict=True)),
            "proposal_quality": quality,
            "panoptic_quality": panoptic,
            "instance_quality": instance,
            "intervals": {key: pair for key, pair in intervals.items() if pair and photos > 1},
            "unseen": list(self.space.unseen),
        }

    def _trained(self, model: ModelSurface) -> np.ndarray | None:
        """(K,) bool, the names that the model was trained with; None if unknown, or in another protocol."""
        trained = {name.casefold() for name in model.settings.calibration.trained_names}
        if self.protocol.kind != "cross-dataset" or not trained:
            return None
        return np.array([any(text.casefold() in trained for text in texts) for texts in self.space.vocabulary.synonyms])


def _compare(
    pair: Pair, space: LabelSpace, truth: np.ndarray, result: Segmentation, requested: np.ndarray
) -> EvaluatedPhoto:
    confusion = Confusion(len(space.names))
    label_map = space.predicted(result.label_map, requested)
    confusion.add(truth, label_map)
    hits, _, predicted = confusion.counts
    segments = [(segment.score, int(requested[segment.class_id])) for segment in result.segments]
    known = [(score, label) for score, label in segments if predicted[label]]  # others lie on unknown pixels only
    return EvaluatedPhoto(
        pair,
        result.photo,
        space,
        truth,
        label_map,
        confusion,
        scores=tuple(score for score, _ in known),
        correct=tuple(bool(2 * hits[label] > predicted[label]) for _, label in known),
    )
