"""What every model offers, whatever engine computes it: ``segment``, ``label``, ``vocabulary``, ``embed``. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.arrays import to_float32
from deop.errors import SettingError
from deop.images.masks import Masks
from deop.images.reading import Photo
from deop.labelling.heatmaps import score_heatmaps
from deop.labelling.masks import PhotoMasks
from deop.labelling.present_names import keep_present
from deop.labelling.result import PhotoWithMasks, assemble
from deop.labelling.uncovered_cells import add_uncovered_cells
from deop.model_names import ModelNames, Names
from deop.networks.memory import free_memory, is_out_of_memory, naming_photo
from deop.photo_lists import describe_photo, masks_of_each
from deop.results.checks import check_request
from deop.results.name_lookup import find_names
from deop.results.segmentation import Segmentation
from deop.settings import ANCHORS, Card, Settings
from deop.severance import Severance
from deop.text.thresholds import Thresholds, ThresholdValue
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.regions.two_stream import TwoStream

CLASSIFIERS = ("one-pass", "two-stream")
"""Ways to encode regions: all in one pass, or each as a crop (docs/method.md §8)."""


class ModelSurface(ModelNames):
    """The methods that all models share.

    A subclass adds ``encode``, ``check_encoding``, ``class_probabilities`` and ``needs_masks``.

    Attributes:
        engine: "onnx" or "torch".
        precision: what the networks compute in: "float32", "float16", "bfloat16" or "int8".
        text: the text encoder.
        settings: default behaviour.
        card: description of the model.
        cache: embeddings of names on disk; None: names are embedded again in each process.
        device: where the networks compute; its string begins with "cpu", or with the kind of another device.
    """

    engine: str
    precision: str
    device: Any
    card: Card

    @property
    def device_kind(self) -> str:
        """The kind of the device, such as "cpu" or "cuda", without its index."""
        return str(self.device).partition(":")[0]

    @property
    def default_batch(self) -> int:
        """Number of photos that are best processed together."""
        return 1 if self.device_kind == "cpu" else 8

    @property
    def needs_masks(self) -> bool:
        """Whether masks must be given with each photo, because the model has no proposer."""
        raise NotImplementedError

    def segment(
        self,
        photo: Photo | Sequence[Photo],
        names: Names | None = None,
        *,
        mode: str = "semantic",
        masks: Masks | Sequence[Masks] | None = None,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: "str | TwoStream" = "one-pass",
        threshold: ThresholdValue = None,
        smallest_region: float | None = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        heatmaps: Sequence[str] | str = (),
        bank: "Bank | None" = None,
        bank_weight: float | None = None,
        batch: int = 8,
    ) -> Segmentation | list[Segmentation]:
        """Segment one photo, or several, into named regions: ``encode``, then ``label``.

        Args:
            photo: path, PIL image, (H, W, 3) uint8 array or bytes, or a list of them.
            names: the class names: a list, a comma-separated string or a ``Vocabulary``; "sofa|couch" are synonyms.
                None: those that the bank has examples of.
            mode: "semantic": one name per pixel; "panoptic": one segment per thing and one per kind of stuff;
                "instance": things only, whose masks may overlap.
            masks: masks to use instead of the proposer's, at the size of the photo: (N, H, W) bool or a label map
                (H, W); for a list of photos, a list of these.
            severance: "none", "self", "gate", "gate-normalized", "affinity", "affinity-normalized" or a ``Severance``;
                None: the model's setting.
            anchors: "decoder" or "pool"; None: the model's setting, or "pool" if the decoder is tied to query slots of
                its own proposer and the masks come from elsewhere.
            classifier: "one-pass", "two-stream" (each proposal is cropped and encoded by itself) or a ``TwoStream``.
            threshold: minimum score of a pixel (semantic) or a segment, in [0, 1]; below it the result is -1, none of
                the names. One number, or one for each name: {"*": 0.3, "dog": 0.6} or "0.3, dog=0.6". None: the
                model's setting.
            smallest_region: share of the photo, in [0, 1): smaller connected regions get the label of their
                surroundings. 0: all regions stay. None: the model's setting.
            background: names that compete but are not in the result ("road, sky"); pixels that they win are -1.
            templates: template set, or templates with ``{}``; None: the model's setting.
            things: the names that are countable things; None: all except those in a list of common stuff.
            heatmaps: names whose score at each pixel is kept in ``Segmentation.heatmaps``: 4 bytes for each.
            bank: examples of the names, from ``deop.learn``, which count beside the words. Names without examples, and
                examples of other names, may be in it too.
            bank_weight: how much examples count, in [0, 1]: 0 words alone, 1 examples alone where there are some. None:
                as fitted on the bank, which is 0.5.
            batch: photos that are processed together.

        Returns:
            One ``Segmentation``, or a list for a list of photos.

        Raises:
            ImageError, VocabularyError, ProposalError, SettingError: naming the input and the remedy.
        """
        single = not isinstance(photo, (list, tuple))
        photos: list[Any] = [photo] if single else list(photo)  # type: ignore[arg-type]
        given: list[Any] = [masks] if single else masks_of_each(masks, len(photos))
        shape = getattr(masks, "shape", None)
        if not single and shape is not None:
            raise SettingError(
                f"one array of masks {tuple(shape)} for a list of photos: give a list, with masks for each photo"
            )
        if len(given) != len(photos):
            raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos: give one set for each photo")
        check_request(mode, batch)
        thresholds = Thresholds.parse(threshold)
        vocabulary = self.vocabulary(
            names, background=background, templates=templates, things=things, bank=bank, bank_weight=bank_weight
        )
        vocabulary.check_mode(mode)
        thresholds.values(vocabulary, self.settings.threshold)  # raises errors before photos are encoded
        find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
        self._settings_of(smallest_region)
        self.check_encoding(severance, anchors, classifier)
        self.embed(vocabulary)
        labelling: dict[str, Any] = {"mode": mode, "threshold": thresholds, "heatmaps": heatmaps}
        results = []
        for first in range(0, len(photos), batch):
            part = slice(first, first + batch)
            encoded = self._encode_within_memory(
                photos, given, part, severance=severance, anchors=anchors, classifier=classifier
            )
            for number, one in enumerate(encoded, first):
                with naming_photo(describe_photo(photos, number), self.device):
                    results.append(self.label(one, vocabulary, smallest_region=smallest_region, **labelling))
        return results[0] if single else results

    def _encode_within_memory(self, photos: list[Any], masks: list[Any], part: slice, **options: Any) -> list[Any]:
        """Encode a part of the photos together; if they do not fit in memory, one by one.

        Raises:
            ResourceError: naming the photo that does not fit by itself.
        """
        numbers = range(*part.indices(len(photos)))
        if len(numbers) > 1:
            try:
                return self.encode(photos[part], masks[part], **options)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()  # not in the handler, where the error still keeps tensors alive
        encoded = []
        for number in numbers:
            with naming_photo(describe_photo(photos, number), self.device):
                encoded += self.encode([photos[number]], [masks[number]], **options)
        return encoded

    def label(
        self,
        encoded: Any,
        names: Names | None = None,
        *,
        mode: str = "semantic",
        threshold: ThresholdValue = None,
        smallest_region: float | None = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        heatmaps: Sequence[str] | str = (),
        bank: "Bank | None" = None,
        bank_weight: float | None = None,
    ) -> Segmentation:
        """Assign names to an encoded photo: the cheap part of ``segment``, with the same arguments.

        Raises:
            VocabularyError, SettingError: naming the input and the remedy.
        """
        check_request(mode)
        if not isinstance(getattr(encoded, "settings", None), dict):
            raise SettingError(f"encoded must be a photo that encode returned, not a {type(encoded).__name__}")
        settings = self._settings_of(smallest_region)
        thresholds = Thresholds.parse(threshold)
        vocabulary = self.vocabulary(
            names, background=background, templates=templates, things=things, bank=bank, bank_weight=bank_weight
        )
        vocabulary.check_mode(mode, warn=False)
        limits = thresholds.values(vocabulary, self.settings.threshold)
        heated = find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
        record = {
            "model": self.card.name,
            **encoded.settings,
            "templates": list(vocabulary.templates) if self.text.uses_templates else None,
            "synonyms": vocabulary.synonyms,
            "background": list(vocabulary.background),
            "threshold": thresholds.record(self.settings.threshold),
            "smallest_region": settings.smallest_region,
            **({"prior": settings.prior} if settings.prior else {}),
            **({} if settings.logit_bias is None else {"scores": "sigmoid"}),
            **({} if vocabulary.source is None else {"vocabulary": vocabulary.source}),
            **self.record_of_bank(vocabulary),
        }
        return self.assemble(encoded, vocabulary, settings, mode, limits, record, heated)

    def _settings_of(self, smallest_region: float | None) -> Settings:
        """The settings of the model, with another ``smallest_region`` unless it is None.

        Raises:
            SettingError: it is not in [0, 1).
        """
        return self.settings if smallest_region is None else replace(self.settings, smallest_region=smallest_region)

    def encode(
        self,
        photos: Sequence[Photo],
        masks: Sequence[Masks | None] | None = None,
        *,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: "str | TwoStream" = "one-pass",
    ) -> list[Any]:
        """Compute everything that does not depend on names: the expensive part of ``segment``.

        Args:
            photos: any number of photos; those of one size are processed together.
            masks: masks for each photo, or None for the proposer's.
            severance: as in ``segment``.
            anchors: as in ``segment``.
            classifier: as in ``segment``.

        Returns:
            One encoded photo each, to be passed to ``label`` any number of times.

        Raises:
            ImageError, ProposalError, SettingError: naming the input and the remedy.
        """
        raise NotImplementedError

    def check_encoding(
        self,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: "str | TwoStream" = "one-pass",
    ) -> Any:
        """Check the options of ``encode`` before photos are read.

        Raises:
            SettingError: an unknown value, one that the engine does not offer, or options that exclude each other.
        """
        Severance.parse(severance, self.settings.severance)
        if anchors is not None and (not isinstance(anchors, str) or anchors not in ANCHORS):
            raise SettingError(f"unknown anchors {anchors!r}: choose one of {', '.join(ANCHORS)}")
        known = classifier in CLASSIFIERS if isinstance(classifier, str) else hasattr(classifier, "seen_columns")
        if not known:  # a TwoStream is known by its method, since its class needs torch
            raise SettingError(f"unknown classifier {classifier!r}: choose {' or '.join(CLASSIFIERS)}")

    def class_probabilities(self, encoded: Any, names: Names) -> Any:
        """Probabilities of the names for each proposal of an encoded photo (docs/method.md §6).

        Returns:
            (N, K + 1) float32: the K names and, last, "none of these".
        """
        raise NotImplementedError

    def cell_logits(self, encoded: Any, names: Names) -> "tuple[np.ndarray, int] | None":
        """Logits (gh, gw, K + 1) float32 of the names at each cell of the patch grid, and the side of a cell in pixels.

        None, as here, if cells are not classified one by one (``anchors="patch"``).
        """
        return None

    def scored_masks(self, encoded: Any, vocabulary: Vocabulary, *, fill: bool = True) -> tuple[np.ndarray, PhotoMasks]:
        """The masks of an encoded photo with their scores, as they are assembled.

        Args:
            encoded: the photo.
            vocabulary: the K names; of a built-in vocabulary, only those that the photo shows have scores above 0.
            fill: with ``anchors="patch"``, whether pixels in no mask become masks, by the names of their own cells.

        Returns:
            Scores (N, K + 1) float32: the K names and, last, "none of these"; and N masks.
        """
        scores, masks = to_float32(self.class_probabilities(encoded, vocabulary)), encoded.masks
        if vocabulary.source is not None:
            scores = keep_present(scores, masks, encoded.canvas, claim=self.settings.claim)
        found = self.cell_logits(encoded, vocabulary) if fill else None
        if found is None:
            return scores, masks
        cells, patch = found
        competes = bool(vocabulary.background)
        if vocabulary.source is not None and (present := scores[:, :-1].any(0)).any():
            cells = np.where(np.append(present, True), cells, -np.inf)
        return add_uncovered_cells(scores, masks, encoded.canvas, cells, patch, none_competes=competes)

    def assemble(
        self,
        encoded: Any,
        vocabulary: Vocabulary,
        settings: Settings,
        mode: str,
        thresholds: Sequence[float],
        record: Mapping[str, Any],
        heated: Sequence[int],
    ) -> Segmentation:
        """The result of an encoded photo, for arguments that ``label`` has checked.

        Args:
            encoded: the photo.
            vocabulary: the K names.
            settings: those of the model, with what ``label`` changes.
            mode: as in ``segment``.
            thresholds: minimum score of each name, K numbers in [0, 1].
            record: how the result was made, which is saved with it.
            heated: the names that have a heatmap, by index.
        """
        segments_are_masks = mode != "semantic" and encoded.masks_are_instances
        scores, masks = self.scored_masks(encoded, vocabulary, fill=not segments_are_masks)
        photo = PhotoWithMasks(encoded.photo, encoded.canvas, masks, encoded.source, encoded.masks_are_instances)
        result = assemble(photo, scores, vocabulary, settings, mode, thresholds, record)
        if not heated:
            return result
        maps = score_heatmaps(scores, masks, encoded.canvas, heated, self.settings.calibration)
        return replace(result, heatmaps=dict(zip([vocabulary.names[k] for k in heated], maps, strict=True)))
