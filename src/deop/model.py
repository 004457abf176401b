"""DeOP: a photo and class names in, one label map out. Read it beside the picture in docs/design.md."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deop.encoders.int8 import is_int8
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.files import existing_folder
from deop.images.canvas import Canvas, canvas_of, group_by_size
from deop.images.preprocessing import Normalization, resize_photo, to_pixels
from deop.images.reading import Photo, read_photo
from deop.networks.loading import load_strictly
from deop.networks.shared_trunk import reuse_features
from deop.proposals.filtering import drop_redundant
from deop.proposals.given import Masks, given_proposals
from deop.proposals.types import Proposals
from deop.protocols import Proposer, TextEncoder, VisionEncoder
from deop.regions import assembly
from deop.regions.anchors import AnchorDecoder
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import EncodedPhoto, encode_one_pass, encode_two_stream
from deop.regions.two_stream import TwoStream, two_stream_probabilities
from deop.results.checks import check_request
from deop.results.segmentation import Segmentation
from deop.settings import ANCHORS, Card, Settings
from deop.text.calibration import Calibration
from deop.text.embedding import Classes, embed_vocabulary
from deop.text.embedding_cache import EmbeddingCache
from deop.text.vocabulary import Vocabulary
from deop.weights.format import ModelParts, load_model_folder, save_model_folder
from deop.weights.hub import fetch

Names = Sequence[str] | str | Vocabulary
"""Class names in every form that is accepted."""


class DeOP(nn.Module):
    """Open-vocabulary segmentation in one pass: proposals, a severed encoder, anchors, text.

    Args:
        encoder: the vision encoder.
        text: the text encoder of the same space.
        proposer: the source of masks; None: masks are given with each call.
        anchors: the anchor decoder; None: mask pooling.
        no_object: (C,) the learned "no object" vector, or None.
        settings: how the model is used.
        card: what the model is and where it comes from.

    Raises:
        SettingError: settings that ask for an anchor decoder that the model lacks.
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
            raise SettingError('the settings ask for anchors="decoder", and the model has no anchor decoder')

    def set_proposer(self, proposer: Proposer | None) -> None:
        """Take masks from another proposer, a module or any object of that protocol; None: masks are given."""
        del self.proposer  # torch refuses to replace a module by anything else
        self.proposer = proposer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' precision."""
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
        threshold: float | None = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
        batch: int = 8,
    ) -> Segmentation | list[Segmentation]:
        """Name every pixel of one photo, or of several: ``encode``, then ``label``.

        Args:
            photo: path, PIL image, (H, W, 3) uint8 array or bytes, or a list of them.
            names: what to look for: a list, a comma-separated string or a ``Vocabulary``; "sofa|couch" are synonyms.
            mode: "semantic": one name per pixel; "panoptic": one segment per thing and one for all of a stuff;
                "instance": things only, each with a mask of its own.
            masks: masks to use instead of the proposer's, at the photo's size: (N, H, W) bool or a label map (H, W);
                a list of such for a list of photos.
            severance: none, self, gate, gate-normalized, affinity, affinity-normalized, or a ``Severance``; None: the
                model's setting.
            anchors: "decoder" or "pool"; None: the model's setting, or pooling where its decoder is tied to the query
                slots of a proposer that the masks do not come from.
            classifier: "one-pass", or "two-stream" (every proposal is cropped and encoded by itself), or a
                ``TwoStream``.
            threshold: minimum score, in [0, 1], of a pixel (semantic) or a segment; below it: -1, none of the names.
                None: the model's setting.
            background: names of what is not looked for ("road, sky"); pixels that they win are -1.
            templates: template set, or templates with ``{}``; None: the model's setting.
            things: which of the names are countable things; None: guessed from a list of common stuff.
            batch: photos that go through the networks together.

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
        check_request(mode, threshold, batch)
        vocabulary = self.vocabulary(names, background=background, templates=templates, things=things)
        self.embed(vocabulary)  # complains about names before the photos are encoded
        results = []
        for first in range(0, len(photos), batch):
            part = slice(first, first + batch)
            encoded = self.encode(
                photos[part], given[part], severance=severance, anchors=anchors, classifier=classifier
            )
            results += [self.label(one, vocabulary, mode=mode, threshold=threshold) for one in encoded]
        return results[0] if single else results

    def vocabulary(
        self,
        names: Names,
        *,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
    ) -> Vocabulary:
        """The vocabulary of some names, with this model's templates unless others are given.

        Raises:
            VocabularyError: names that cannot be used.
        """
        if templates is None and not isinstance(names, Vocabulary):
            templates = self.settings.templates
        return Vocabulary.parse(names, background=background, templates=templates, things=things)

    def embed(self, vocabulary: Vocabulary, *, progress: bool = False) -> Classes:
        """The calibrated embeddings of a vocabulary, on the model's device; read from the cache where possible."""
        key, last = (vocabulary, self.text.identity, self.settings.calibration), self._last_embedded
        if last is None or last[0] != key:
            # Read once and set once: another thread may ask for other names in between.
            classes = embed_vocabulary(
                vocabulary, self.text, self.settings.calibration, cache=self.cache, progress=progress
            )
            last = (key, classes)
            self._last_embedded = last
        return last[1].to(self.device)

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
        """Compute everything that does not depend on names: the expensive half of ``segment``, whose arguments it has.

        Args:
            photos: any number; those of one size go through the networks together.
            masks: masks for each photo, or None for the proposer's.
            severance: as in ``segment``.
            anchors: as in ``segment``.
            classifier: as in ``segment``.

        Returns:
            One ``EncodedPhoto`` for each photo; ``label`` can be called with it as often as needed.

        Raises:
            ImageError, ProposalError, SettingError: naming the input and the remedy.
        """
        if isinstance(photos, (str, Path, bytes)):
            raise SettingError(f"encode takes a list of photos, not {str(photos)[:80]!r}: give [photo]")
        severed, stream = self.check_encoding(severance, anchors, classifier)
        given = list(masks) if masks is not None else [None] * len(photos)
        if len(given) != len(photos):
            raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos: give one set for each photo")
        arrays = [read_photo(photo) for photo in photos]
        resized = [resize_photo(array, self.settings.resize) for array in arrays]
        canvases = [canvas_of(array, self.settings.resize) for array in arrays]
        encoded: dict[int, EncodedPhoto] = {}
        for group in group_by_size(canvases, given):
            some_canvases = [canvases[index] for index in group]
            some_resized = [resized[index] for index in group]
            with reuse_features():
                # The proposer gets the same tensor as the encoder where possible: a trunk that both share works once.
                pixels = self._pixels(some_resized, self.encoder.normalization) if stream is None else None
                proposals = self._propose([given[index] for index in group], some_canvases, some_resized, pixels)
                if pixels is not None:
                    parts = encode_one_pass(
                        self.encoder, self.anchors, self.settings, pixels, some_canvases, proposals, severed, anchors
                    )
                else:
                    assert stream is not None
                    parts = encode_two_stream(
                        self.encoder, some_resized, some_canvases, proposals, stream, self.device, self.dtype
                    )
            for index, part in zip(group, parts, strict=True):
                photo = photos[index]
                source = str(photo) if isinstance(photo, (str, Path)) else None
                encoded[index] = replace(part, photo=arrays[index], source=source)
        return [encoded[index] for index in range(len(photos))]

    @torch.inference_mode()
    def label(
        self,
        encoded: EncodedPhoto,
        names: Names,
        *,
        mode: str = "semantic",
        threshold: float | None = None,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
    ) -> Segmentation:
        """Name the pixels of an encoded photo: the cheap half of ``segment``, whose arguments it has.

        Raises:
            VocabularyError, SettingError: naming the input and the remedy.
        """
        check_request(mode, threshold)
        vocabulary = self.vocabulary(names, background=background, templates=templates, things=things)
        scores = self.class_probabilities(encoded, vocabulary)
        calibration = self.settings.calibration
        threshold = self.settings.threshold if threshold is None else threshold
        raw_threshold = calibration.raw(threshold)
        record = {
            "model": self.card.name,
            **encoded.settings,
            "templates": list(vocabulary.templates) if self.text.uses_templates else None,
            "synonyms": vocabulary.synonyms,
            "background": list(vocabulary.background),
            "threshold": threshold,
        }
        photo, display, source = encoded.photo, vocabulary.names, encoded.source
        isthing = np.array(vocabulary.things, dtype=bool)
        if mode == "semantic":
            labels, confidence = assembly.semantic(
                scores,
                encoded.proposals,
                encoded.canvas,
                threshold=raw_threshold,
                claim=self.settings.claim,
                none_competes=bool(vocabulary.background),
                smallest_region=self.settings.smallest_region,
            )
            result = Segmentation.from_semantic(
                photo, display, labels, confidence, record, isthing=vocabulary.things, source=source
            )
        elif mode == "panoptic":
            segments, pieces = assembly.panoptic(
                scores,
                encoded.proposals,
                encoded.canvas,
                isthing,
                threshold=raw_threshold,
                smallest_region=self.settings.smallest_region,
            )
            result = Segmentation.from_panoptic(photo, display, segments, pieces, record, source=source)
        else:
            masks = assembly.instances(scores, encoded.proposals, encoded.canvas, isthing, threshold=raw_threshold)
            result = Segmentation.from_instances(photo, display, masks, record, source=source)
        if not calibration.curve:
            return result
        segments_scored = [replace(segment, score=calibration.score(segment.score)) for segment in result.segments]
        return replace(result, segments=segments_scored)

    @torch.inference_mode()
    def class_probabilities(self, encoded: EncodedPhoto, names: Names) -> Tensor:
        """Probabilities of the names for each proposal of an encoded photo (docs/method.md §6).

        Returns:
            (N, K + 1) float32: the K names and, last, none of them.
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
        """Check the options of ``encode`` before a photo is at stake.

        Returns:
            The severance, and how crops are classified; None: one pass.

        Raises:
            SettingError: an unknown value, or two that exclude each other.
        """
        severed, stream = Severance.parse(severance, self.settings.severance), TwoStream.parse(classifier)
        if anchors is not None and anchors not in ANCHORS:
            raise SettingError(f"unknown anchors {anchors!r}: choose one of {', '.join(ANCHORS)}")
        if anchors == "decoder" and self.anchors is None:
            raise SettingError('this model has no anchor decoder: use anchors="pool"')
        if stream is not None and (severance is not None or anchors is not None):
            option = "anchors" if severance is None else "severance"
            raise SettingError(f'classifier="two-stream" encodes crops, which have no {option}: omit {option}')
        return severed, stream

    def _pixels(self, resized: Sequence[np.ndarray], normalization: Normalization) -> Tensor:
        """Photos of one padded size as a batch (B, 3, H, W), normalised and padded."""
        divisor = self.settings.resize.divisor
        return torch.stack(
            [to_pixels(photo, normalization, divisor, device=self.device, dtype=self.dtype) for photo in resized]
        )

    def _propose(
        self,
        masks: Sequence[Masks | None],
        canvases: Sequence[Canvas],
        resized: Sequence[np.ndarray],
        pixels: Tensor | None,
    ) -> list[Proposals]:
        """Masks of photos of one padded size: those given with all of them, else the proposer's.

        ``pixels`` are normalised for the encoder, and None where the encoder does not use them.
        """
        given = [
            given_proposals(array, canvas.photo, canvas.resized, canvas.padded).to(self.device)
            for array, canvas in zip(masks, canvases, strict=True)
            if array is not None
        ]
        if given:
            return given
        if self.proposer is None:
            raise SettingError(
                "this model has no proposer: give masks (masks=..., --masks), or load it with one (proposer=...)"
            )
        if pixels is None or self.proposer.normalization != self.encoder.normalization:
            pixels = self._pixels(resized, self.proposer.normalization)
        proposals = self.proposer(pixels)
        tied = self.anchors is not None and self.anchors.config.query == "slot" and self.settings.anchors == "decoder"
        if tied or not self.settings.drop_redundant:
            return proposals
        return [drop_redundant(candidates) for candidates in proposals]

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> "DeOP":
        """Load a model in deop's own format from a folder or a hub repo.

        Raises:
            ModelNotFoundError: not on this machine, and the hub cannot be reached; or neither a folder nor a repo.
            CheckpointError: damaged, incomplete or of another format.
        """
        folder = existing_folder(name) or fetch(str(name), revision or "main")
        parts, state = load_model_folder(folder)
        model = cls(
            parts.encoder,
            parts.text,
            parts.proposer,
            anchors=parts.anchors,
            no_object=parts.no_object,
            settings=parts.settings,
            card=parts.card,
        )
        load_strictly(model, state, str(folder))
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, packed: bool = False) -> Path:
        """Write ``config.json``, ``model.safetensors``, tokenizer and model card into a folder.

        Args:
            folder: created where it is missing.
            packed: store weights as int8 and float16, at about a quarter of the size and with some loss.

        Returns:
            The folder.

        Raises:
            OutputError: the folder cannot be written; nothing is left half-written.
            SettingError: the model was loaded in int8, whose weights no other machine could read.
        """
        if is_int8(self):
            raise SettingError(
                'a model in int8 cannot be saved: load it without dtype="int8" and save that, with packed=True for a '
                "small file"
            )
        parts = ModelParts(
            self.encoder, self.text, self.proposer, self.anchors, self.no_object, self.settings, self.card
        )
        return save_model_folder(parts, self.state_dict(), Path(folder), packed=packed)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, message: str = "Upload deop model") -> str:
        """Publish the model on the Hugging Face hub and return the address of the commit."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))
