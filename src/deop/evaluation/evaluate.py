"""A model on a data set: every photo named, every pixel counted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deop._version import __version__
from deop.data.folder import LabelledFolder, Pair
from deop.encoders.severance import Severance
from deop.evaluation.bootstrap import Bootstrap, PhotoSums
from deop.evaluation.metrics import Confusion, iou, known, mean, ratio, semantic_scores
from deop.evaluation.panoptic_quality import count_matches, panoptic_scores
from deop.evaluation.proposal_quality import WIDTH, count_found, mask_fit, proposal_scores
from deop.evaluation.protocol import LabelSpace, Protocol, some_names
from deop.evaluation.truth import PanopticTruth, TrueSegments, components, has_panoptic
from deop.model import DeOP
from deop.regions.encoding import EncodedPhoto
from deop.results.segmentation import Segmentation

__all__ = ["Answer", "Protocol", "evaluate"]


@dataclass(frozen=True)
class Answer:
    """One photo of a data set, answered.

    Attributes:
        pair: the photo's files.
        photo: (H, W, 3) uint8.
        space: the classes.
        truth: (H, W) int32, index of the class, -1 where it is ignored.
        label_map: (H, W) int32, index of the class that was answered, -1 for none.
        confusion: of this photo alone.
        scores: score of each segment that was named.
        right: whether most of its known pixels have that name in truth.
    """

    pair: Pair
    photo: np.ndarray
    space: LabelSpace
    truth: np.ndarray
    label_map: np.ndarray
    confusion: Confusion
    scores: tuple[float, ...]
    right: tuple[bool, ...]


def evaluate(
    model: DeOP,
    data: LabelledFolder,
    protocol: Protocol | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    bootstrap: Bootstrap | None = None,
    watch: Callable[[Answer], None] | None = None,
) -> dict[str, Any]:
    """Name every photo of a data set and compare with its truth.

    IoU is accumulated over the whole set; classes that the truth does not have are None and not averaged. Every pixel
    that a mask claims is named, whatever its score, unless the protocol has a threshold; one without a name (-1) is a
    miss.

    Args:
        model: with a proposer, unless the true masks are used.
        data: the photos.
        protocol: what is asked.
        progress: called with photos done and photos in all.
        bootstrap: how intervals are found.
        watch: called with each photo's answer, to save or draw it; answers are not kept.

    Returns:
        JSON's own types; docs/evaluation.md lists them.

    Raises:
        SettingError: unseen names that the data set does not have, or a protocol that does not fit it.
        DataError: a photo or mask that does not fit, by name.
    """
    protocol, bootstrap = protocol or Protocol(), bootstrap or Bootstrap()
    space = LabelSpace.of(data, model, protocol)
    tally = _Tally(space, protocol)
    pairs = data.pairs[: protocol.limit]
    for done, pair in enumerate(pairs):
        answer = tally.answer(model, pair)
        if answer and watch:
            watch(answer)
        if progress:
            progress(done + 1, len(pairs))
    return tally.summary(bootstrap, model) | {
        "images": len(tally.classes),
        "images_without_truth": len(pairs) - len(tally.classes),
        "seconds_per_image": tally.seconds / max(len(tally.classes), 1),
        "protocol": protocol.kind,
        "data": str(data.root),
        "model": model.card.name,
        "severance": Severance.parse(protocol.severance, model.settings.severance).kind,
        "classifier": protocol.classifier if isinstance(protocol.classifier, str) else "two-stream",
        "anchors": tally.anchors,
        "proposals": protocol.proposals,
        "names": protocol.names,
        "threshold": _threshold(model, protocol),
        "background": list(protocol.background),
        "confidence": bootstrap.confidence,
        "resamples": bootstrap.resamples,
        "seed": bootstrap.seed,
        "deop": __version__,
    }


@dataclass
class _Tally:
    """What is counted, photo by photo."""

    space: LabelSpace
    protocol: Protocol
    seconds: float = 0.0
    anchors: str | None = None
    classes: PhotoSums = field(init=False)
    regions: PhotoSums = field(init=False)
    panoptic: PhotoSums = field(init=False)
    proposals: PhotoSums = field(init=False)
    photos_with: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.space.names)
        self.classes, self.panoptic = PhotoSums((3, count)), PhotoSums((4, count))
        self.regions, self.proposals = PhotoSums((2,)), PhotoSums((WIDTH,))
        self.photos_with = np.zeros(count, np.int64)
        root = self.space.data.root
        self._panoptic_truth = PanopticTruth(root, self.space.ids) if has_panoptic(root) else None

    def answer(self, model: DeOP, pair: Pair) -> Answer | None:
        """Answer one photo and count; None where nothing of it is known."""
        space, protocol = self.space, self.protocol
        truth = space.truth(pair)
        present = np.unique(truth[truth >= 0])
        if not len(present):
            return None
        asked = space.asked(truth, protocol)
        masks = np.stack([truth == label for label in present]) if protocol.proposals == "oracle" else None
        started = time.perf_counter()
        chosen = some_names(space.vocabulary, asked)
        look = model.encode(
            [pair.photo],
            [masks],
            severance=protocol.severance,
            anchors=protocol.anchors,
            classifier=protocol.classifier,
        )[0]
        found = model.label(look, chosen, threshold=_threshold(model, protocol))
        self.seconds += time.perf_counter() - started
        self.anchors = look.settings.get("anchors")
        answer = _compare(pair, space, truth, found, asked)
        self.classes.add(answer.confusion.counts)
        self.photos_with[present] += 1
        if masks is not None:
            votes = model.class_probabilities(look, chosen)[:, :-1].argmax(1).cpu().numpy()
            self.regions.add(np.array([(asked[votes] == present).sum(), len(present)]))
        else:
            segments = self._true_segments(pair, truth)
            self.proposals.add(count_found(*mask_fit(look.proposals, look.canvas, segments)))
            if self._panoptic_truth:
                self._count_panoptic(model, look, asked, segments)
        return answer

    def _true_segments(self, pair: Pair, truth: np.ndarray) -> TrueSegments:
        if self._panoptic_truth:
            return self._panoptic_truth.segments(pair, (truth.shape[0], truth.shape[1]))
        if self.space.has_background:
            truth = np.where(truth == len(self.space.names) - 1, -1, truth)
        return components(truth, self.space.things)

    def _count_panoptic(self, model: DeOP, look: EncodedPhoto, asked: np.ndarray, truth: TrueSegments) -> None:
        found = model.label(look, some_names(self.space.vocabulary, asked), mode="panoptic")
        classes = asked[[segment.class_id for segment in found.segments]]
        self.panoptic.add(count_matches(truth, found.segment_map, classes, len(self.space.names)))

    def summary(self, bootstrap: Bootstrap, model: DeOP) -> dict[str, Any]:
        """The scores and their intervals, as JSON has them."""
        names, photos, intervals = self.space.names, len(self.classes), {}

        def scored(
            sums: PhotoSums, score: Callable[[np.ndarray], dict[str, np.ndarray]], prefix: str = ""
        ) -> dict[str, Any]:
            total = score(sums.total())
            bounds = bootstrap.interval(bootstrap.draw(sums, lambda part: np.stack(list(score(part).values()), -1)))
            for key, low, high in zip(total, *bounds.tolist(), strict=True):
                intervals[prefix + key] = None if np.isnan(low) else [low, high]
            return {key: known(value) for key, value in total.items()}

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
        if len(self.proposals):
            quality = scored(self.proposals, lambda part: proposal_scores(part, photos), "proposal_quality.")
            quality |= {"segments": int(quality["segments"] or 0)}
            quality["truth"] = "panoptic" if self._panoptic_truth else "components"
            del intervals["proposal_quality.segments"], intervals["proposal_quality.proposals_per_image"]
        if len(self.panoptic):
            things = self.space.things
            panoptic = scored(self.panoptic, lambda part: panoptic_scores(part, things), "panoptic_quality.")
        bounds = bootstrap.interval(bootstrap.draw(self.classes, iou)).T
        per_class = iou(self.classes.total())
        return {
            **semantic,
            "region_accuracy": region["region_accuracy"],
            "regions": int(self.regions.total()[1]),
            "per_class": {name: known(value) for name, value in zip(names, per_class, strict=True)},
            "per_class_intervals": {  # one photo says nothing of others
                name: pair.tolist() if count > 1 else None
                for name, count, pair in zip(names, self.photos_with, bounds, strict=True)
            },
            "per_class_images": dict(zip(names, self.photos_with.tolist(), strict=True)),
            "proposal_quality": quality,
            "panoptic_quality": panoptic,
            "intervals": {key: pair for key, pair in intervals.items() if pair and photos > 1},
            "unseen": list(self.space.unseen),
        }

    def _trained(self, model: DeOP) -> np.ndarray | None:
        """(K,) bool, names that the model knows to have been trained with; None where it is not asked or not known."""
        trained = {name.casefold() for name in model.settings.calibration.trained_names}
        if self.protocol.kind != "cross-dataset" or not trained:
            return None
        return np.array([any(text.casefold() in trained for text in texts) for texts in self.space.vocabulary.synonyms])


def _compare(pair: Pair, space: LabelSpace, truth: np.ndarray, found: Segmentation, asked: np.ndarray) -> Answer:
    confusion = Confusion(len(space.names))
    label_map = space.answer(found.label_map, asked)
    confusion.add(truth, label_map)
    hit, _, named = confusion.counts
    judged = [(segment.score, int(asked[segment.class_id])) for segment in found.segments]
    judged = [(score, label) for score, label in judged if named[label]]  # nothing is known of the others' pixels
    return Answer(
        pair,
        found.photo,
        space,
        truth,
        label_map,
        confusion,
        scores=tuple(score for score, _ in judged),
        right=tuple(bool(2 * hit[label] > named[label]) for _, label in judged),
    )


def _threshold(model: DeOP, protocol: Protocol) -> float:
    if protocol.threshold is not None:
        return protocol.threshold
    return model.settings.threshold if protocol.kind == "with-background" else 0.0
