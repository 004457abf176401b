"""The model: a photo and class names in, a label map out. docs/design.md has a diagram of the steps."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.reading import Photo
from deop.networks.devices import check_finite
from deop.networks.memory import free_memory, is_out_of_memory, naming_photo
from deop.proposals.given import Masks
from deop.protocols import Proposer, TextEncoder, VisionEncoder
from deop.regions.anchors import AnchorDecoder
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import EncodedPhoto, check_anchors
from deop.regions.heatmaps import anchor_heatmaps, score_heatmaps
from deop.regions.labelling import assemble
from deop.regions.photos import encode_photos
from deop.regions.present_names import keep_present
from deop.regions.two_stream import TwoStream, two_stream_probabilities
from deop.results.checks import check_request
from deop.results.name_lookup import find_names
from deop.results.segmentation import Segmentation
from deop.settings import Card, Settings
from deop.text.calibration import Calibration
from deop.text.embedding import Classes, embed_vocabulary
from deop.text.embedding_cache import EmbeddingCache
from deop.text.templates import NONE, parse_templates
from deop.text.thresholds import Thresholds, ThresholdValue
from deop.text.vocabulary import Vocabulary, VocabularyWarning
from deop.weights.pretrained import Pretrained

Names = Sequence[str] | str | Vocabulary
"""Class names in any accepted form."""


class DeOP(Pretrained):
    """Open-vocabulary segmentation in one pass: proposals, a severed encoder, anchors, text.

    Args:
        encoder: the vision encoder.
        text: the text encoder of the same joint space.
        proposer: the source of masks; None: masks must be given with each call.
        anchors: the anchor decoder; None: regions are pooled over their masks.
        no_object: (C,) float, the learned "no object" vector, or None.
        settings: default behaviour.
        card: description of the model.

    Raises:
        SettingError: the settings require an anchor decoder and there is none.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        text: TextEncoder,
        proposer: Proposer | None = None,
        *,
        anchors: AnchorDecoder | None = None,
        no_object: Tensor | None = None,
        settings: Settings | None = None,
        card: Card | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = text
        self.proposer = proposer
        self.anchors = anchors
        self.no_object = None if no_object is None else nn.Parameter(no_object.reshape(-1))
        self.settings = settings or Settings()
        self.card = card or Card()
        self.cache: EmbeddingCache | None = EmbeddingCache()
        self._last_embedded: tuple[tuple[Vocabulary, str, Calibration], Classes] | None = None
        if self.settings.anchors == "decoder" and anchors is None:
            raise SettingError('the settings have anchors="decoder", but the model has no anchor decoder: use "pool"')

    def set_proposer(self, proposer: Proposer | None) -> None:
        """Replace the proposer by a module or any other object with that protocol; None: masks must be given."""
        del self.proposer  # torch only allows to replace a module by a module
        self.proposer = proposer

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    @torch.inference_mode()
    def segment(
        self,
        photo: Photo | Sequence[Photo],
        names: Names,
        *,
        mode: str = "semantic",
        masks: Masks | Sequence[Masks] | None = None,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: str | TwoStream = "one-pass",
        threshold: ThresholdValue = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        heatmaps: Sequence[str] | str = (),
        batch: int = 8,
    ) -> Segmentation | list[Segmentation]:
        """Segment one photo, or several, into named regions: ``encode``, then ``label``.

        Args:
            photo: path, PIL image, (H, W, 3) uint8 array or bytes, or a list of them.
            names: the class names: a list, a comma-separated string or a ``Vocabulary``; "sofa|couch" are synonyms.
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
            background: names that compete but are not in the result ("road, sky"); pixels that they win are -1.
            templates: template set, or templates with ``{}``; None: the model's setting.
            things: the names that are countable things; None: all except those in a list of common stuff.
            heatmaps: names whose score at each pixel is kept in ``Segmentation.heatmaps``: 4 bytes for each.
            batch: photos that are processed together.

        Returns:
            One ``Segmentation``, or a list for a list of photos.

        Raises:
            ImageError, VocabularyError, ProposalError, SettingError: naming the input and the remedy.
        """
        single = not isinstance(photo, (list, tuple))
        photos: list[Any] = [photo] if single else list(photo)  # type: ignore[arg-type]
        given: list[Any] = [masks] if single else ([None] * len(photos) if masks is None else list(masks))
        if not single and isinstance(masks, (np.ndarray, Tensor)):
            raise SettingError(
                f"one array of masks {tuple(masks.shape)} for a list of photos: give a list, with masks for each photo"
            )
        if len(given) != len(photos):
            raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos: give one set for each photo")
        check_request(mode, batch)
        thresholds = Thresholds.parse(threshold)
        vocabulary = self.vocabulary(names, background=background, templates=templates, things=things)
        vocabulary.check_mode(mode)
        thresholds.values(vocabulary, self.settings.threshold)  # raises errors before photos are encoded
        find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
        self.embed(vocabulary)
        results = []
        for first in range(0, len(photos), batch):
            part = slice(first, first + batch)
            encoded = self._encode_within_memory(
                photos, given, part, severance=severance, anchors=anchors, classifier=classifier
            )
            for number, one in enumerate(encoded, first):
                with naming_photo(_describe(photos, number), self.device):
                    results.append(self.label(one, vocabulary, mode=mode, threshold=thresholds, heatmaps=heatmaps))
        return results[0] if single else results

    def _encode_within_memory(
        self, photos: list[Any], masks: list[Any], part: slice, **options: Any
    ) -> list[EncodedPhoto]:
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
            with naming_photo(_describe(photos, number), self.device):
                encoded += self.encode([photos[number]], [masks[number]], **options)
        return encoded

    def vocabulary(
        self,
        names: Names,
        *,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
    ) -> Vocabulary:
        """Create a vocabulary; templates default to those of the model's settings.

        Raises:
            VocabularyError: invalid names.

        Warns:
            VocabularyWarning: the model's text encoder does not use the templates.
        """
        if templates is not None and not self.text.uses_templates and parse_templates(templates) != NONE:
            warnings.warn(
                "templates have no effect with this model: its text encoder reads names without a sentence. Omit them "
                "(--templates)",
                VocabularyWarning,
                stacklevel=2,
            )
        if templates is None and not (isinstance(names, Vocabulary) and names.source is None):
            templates = self.settings.templates
        return Vocabulary.parse(names, background=background, templates=templates, things=things)

    def embed(self, vocabulary: Vocabulary, *, progress: bool = False) -> Classes:
        """Calibrated embeddings of a vocabulary on the model's device; cached until text encoder or settings change."""
        key, last = (vocabulary, self.text.identity, self.settings.calibration), self._last_embedded
        if last is None or last[0] != key:
            # Read once and set once, since another thread may embed another vocabulary in between.
            classes = embed_vocabulary(
                vocabulary, self.text, self.settings.calibration, cache=self.cache, progress=progress
            )
            last = (key, classes)
        with torch.inference_mode(False):  # inference tensors that are kept could not be used in training
            classes = last[1].to(self.device)
        self._last_embedded = (key, classes)  # on the device, so that they are copied there only once
        return classes

    @torch.inference_mode()
    def encode(
        self,
        photos: Sequence[Photo],
        masks: Sequence[Masks | None] | None = None,
        *,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: str | TwoStream = "one-pass",
    ) -> list[EncodedPhoto]:
        """Compute everything that does not depend on names: the expensive part of ``segment``.

        Args:
            photos: any number of photos; those of one size are processed together.
            masks: masks for each photo, or None for the proposer's.
            severance: as in ``segment``.
            anchors: as in ``segment``.
            classifier: as in ``segment``.

        Returns:
            One ``EncodedPhoto`` per photo, to be passed to ``label`` any number of times.

        Raises:
            ImageError, ProposalError, SettingError: naming the input and the remedy.
        """
        if isinstance(photos, (str, bytes)) or not isinstance(photos, Sequence):
            shown = repr(str(photos)[:80]) if isinstance(photos, (str, Path, bytes)) else f"a {type(photos).__name__}"
            raise SettingError(f"encode takes a list of photos, not {shown}: give [photo]")
        severed, stream = self.check_encoding(severance, anchors, classifier)
        given = list(masks) if masks is not None else [None] * len(photos)
        if len(given) != len(photos):
            raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos: give one set for each photo")
        encoded = encode_photos(
            self.encoder,
            self.proposer,
            self.anchors,
            self.settings,
            photos,
            given,
            severed,
            stream,
            anchors,
            self.device,
            self.dtype,
        )
        for one in encoded:
            check_finite(one.regions if one.valid is None else one.regions[one.valid], self.dtype)
        return encoded

    @torch.inference_mode()
    def label(
        self,
        encoded: EncodedPhoto,
        names: Names,
        *,
        mode: str = "semantic",
        threshold: ThresholdValue = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        heatmaps: Sequence[str] | str = (),
    ) -> Segmentation:
        """Assign names to an encoded photo: the cheap part of ``segment``, with the same arguments.

        Raises:
            VocabularyError, SettingError: naming the input and the remedy.
        """
        check_request(mode)
        thresholds = Thresholds.parse(threshold)
        vocabulary = self.vocabulary(names, background=background, templates=templates, things=things)
        vocabulary.check_mode(mode, warn=False)
        limits = thresholds.values(vocabulary, self.settings.threshold)
        heated = find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
        scores = self.class_probabilities(encoded, vocabulary)
        if vocabulary.source is not None:
            scores = keep_present(scores, encoded.proposals, encoded.canvas, claim=self.settings.claim)
        record = {
            "model": self.card.name,
            **encoded.settings,
            "templates": list(vocabulary.templates) if self.text.uses_templates else None,
            "synonyms": vocabulary.synonyms,
            "background": list(vocabulary.background),
            "threshold": thresholds.record(self.settings.threshold),
            **({} if vocabulary.source is None else {"vocabulary": vocabulary.source}),
        }
        result = assemble(encoded, scores, vocabulary, self.settings, mode, limits, record)
        if not heated:
            return result
        maps = score_heatmaps(scores, encoded.proposals, encoded.canvas, heated, self.settings.calibration)
        return replace(result, heatmaps=dict(zip([vocabulary.names[k] for k in heated], maps, strict=True)))

    @torch.inference_mode()
    def anchor_heatmaps(
        self, encoded: EncodedPhoto, names: Names, heatmaps: Sequence[str] | str
    ) -> dict[str, np.ndarray]:
        """Where the model looked: the weights of the patches in the embeddings of the regions that have a name.

        Args:
            encoded: the photo.
            names: as in ``segment``.
            heatmaps: the names, among ``names``, that heatmaps are computed for.

        Returns:
            For each name an array (H, W) float32 in [0, 1] with the maximum 1; 0 for a name that no region has.

        Raises:
            VocabularyError, SettingError: naming the input and the remedy.
        """
        vocabulary = self.vocabulary(names)
        chosen = find_names(heatmaps, vocabulary.names, vocabulary.synonyms)
        maps = anchor_heatmaps(encoded, self.class_probabilities(encoded, vocabulary), chosen, self.encoder.patch)
        return dict(zip([vocabulary.names[k] for k in chosen], maps, strict=True))

    @torch.inference_mode()
    def class_probabilities(self, encoded: EncodedPhoto, names: Names) -> Tensor:
        """Probabilities of the names for each proposal of an encoded photo (docs/method.md §6).

        Returns:
            (N, K + 1) float32: the K names and, last, "none of these".
        """
        classes = self.embed(self.vocabulary(names))
        if encoded.two_stream is None or encoded.valid is None:
            return probabilities(classify(encoded.regions, classes, self.no_object, self.settings.temperature))
        return two_stream_probabilities(
            encoded.regions,
            encoded.valid,
            encoded.proposals,
            classes,
            encoded.two_stream,
            self.no_object,
            self.settings.temperature,
        )

    def check_encoding(
        self,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: str | TwoStream = "one-pass",
    ) -> tuple[Severance, TwoStream | None]:
        """Check the options of ``encode`` before photos are read.

        Returns:
            The severance, and the settings of the two-stream classifier, or None for one pass.

        Raises:
            SettingError: an unknown value, or options that exclude each other.
        """
        severed, stream = Severance.parse(severance, self.settings.severance), TwoStream.parse(classifier)
        check_anchors(anchors, self.anchors)
        if stream is not None and (severance is not None or anchors is not None):
            option = "anchors" if severance is None else "severance"
            raise SettingError(f'classifier="two-stream" encodes crops, which do not use {option}: omit {option}')
        return severed, stream


def _describe(photos: list[Any], number: int) -> str:
    """A photo in an error message: its path, or its place in the list, with its size if that is known."""
    photo = photos[number]
    if isinstance(photo, (str, Path)):
        return str(photo)
    place = "the photo" if len(photos) == 1 else f"photo {number + 1} of {len(photos)}"
    if isinstance(photo, np.ndarray) and photo.ndim > 1:
        return f"{place} ({photo.shape[1]} x {photo.shape[0]} px)"
    return place
