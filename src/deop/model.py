"""DeOP: a photo and a list of names in, one map out. Read it beside the picture in docs/design.md."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop import assembly
from deop.anchors import AnchorDecoder
from deop.assembly import Canvas
from deop.calibration import calibrated
from deop.checkpoints import Parts, load_checkpoint, save_checkpoint
from deop.classify import classify, probabilities
from deop.encoders import VisionEncoder
from deop.encoders.int8 import is_int8
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.hub import fetch
from deop.images import Normalization, Photo, read_photo, resize_photo, to_pixels
from deop.look import Look, canvas_of, crop_each, groups_of, one_pass
from deop.proposals import Proposals, Proposer
from deop.proposals.filtering import drop_redundant
from deop.proposals.given import Masks, given_proposals
from deop.results import Segmentation, check_asked
from deop.settings import Card, Settings
from deop.text_cache import EmbeddingCache
from deop.two_stream import TwoStream, crop_probabilities, ensemble
from deop.vocabulary import Classes, TextEncoder, Vocabulary, embed_vocabulary
from deop.weights import load_strictly


class DeOP(nn.Module):
    """Open-vocabulary segmentation in one pass: proposals, a severed encoder, anchors, text.

    Args:
        encoder: the vision encoder.
        text: the text encoder of the same space.
        proposer: the source of masks; None: masks are given with each call.
        anchors: the anchor decoder; None: mask pooling.
        no_object: (C,) the learned "no object" vector, or None.
        settings: how the model is used.
        card: what it is.
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
        self._embedded: tuple[tuple[Vocabulary, str], Classes] | None = None  # the last vocabulary
        if self.settings.anchors == "decoder" and anchors is None:
            raise SettingError('the settings ask for anchors="decoder", and the model has no anchor decoder')

    def __setattr__(self, name: str, value: Any) -> None:
        """Parts may be plain objects too, also in the place of a module, which torch would refuse."""
        if name in ("encoder", "text", "proposer") and not isinstance(value, nn.Module):
            self.__dict__.get("_modules", {}).pop(name, None)
        super().__setattr__(name, value)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' precision."""
        return next(self.parameters()).dtype

    # The main road: photo + names -> map.

    @torch.inference_mode()
    def segment(
        self,
        photo: Photo | Sequence[Photo],
        names: Sequence[str] | str | Vocabulary,
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
        """Name every pixel of a photo, or of several.

        Args:
            photo: path, PIL image, (H, W, 3) uint8 array or bytes, or a list of them.
            names: what to look for: a list, a comma-separated string or a ``Vocabulary``; "sofa|couch" are synonyms.
            mode: "semantic": one name a pixel; "panoptic": things apart, stuff together; "instance": things only, each
                with a mask of its own.
            masks: masks to use instead of the proposer's, at the photo's size: (N, H, W) bool or a label map (H, W);
                a list of such for a list of photos.
            severance: none, self, gate, gate-normalized, affinity, affinity-normalized, or a ``Severance``; None: the
                model's own.
            anchors: "decoder" or "pool"; None: the model's own, or pooling where its decoder is tied to the query slots
                of a proposer that the masks do not come from.
            classifier: "one-pass", or "two-stream" (every proposal cropped and encoded by itself), or a ``TwoStream``.
            threshold: least score, in [0, 1], of a pixel (semantic) or a segment; below it: -1, none of the names.
                None: the model's own.
            background: names of what is not looked for ("road, sky"); pixels that they win are -1.
            templates: template set, or own templates with ``{}``; None: the model's own.
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
                f"one array of masks {tuple(masks.shape)} for a list of photos: give a list, one for each"
            )
        if len(given) != len(photos):
            raise SettingError(f"{len(given)} sets of masks for {len(photos)} photos")
        check_asked(mode, threshold, batch)
        vocabulary = self.vocabulary(names, background=background, templates=templates, things=things)
        classes = self.embed(vocabulary)
        results = []
        for first in range(0, len(photos), batch):
            part = slice(first, first + batch)
            looks = self.look(photos[part], given[part], severance=severance, anchors=anchors, classifier=classifier)
            results += [self.name(look, vocabulary, classes, mode=mode, threshold=threshold) for look in looks]
        return results[0] if single else results

    def vocabulary(
        self,
        names: Sequence[str] | str | Vocabulary,
        *,
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
    ) -> Vocabulary:
        """Names as this model takes them: with its own templates where none are given.

        Raises:
            VocabularyError: names that cannot be used.
        """
        if templates is None and not isinstance(names, Vocabulary):
            templates = self.settings.templates
        return Vocabulary.parse(names, background=background, templates=templates, things=things)

    def embed(self, vocabulary: Vocabulary, *, progress: bool = False) -> Classes:
        """The embeddings of a vocabulary, on the model's device; from the cache where they are there."""
        wanted, last = (vocabulary, self.text.identity), self._embedded
        if last is None or last[0] != wanted:
            # Read once and set once: another thread may ask for other names in between.
            found = embed_vocabulary(vocabulary, self.text, cache=self.cache, progress=progress)
            last = (wanted, self._calibrated(found, vocabulary))
            self._embedded = last
        return last[1].to(self.device)

    def _calibrated(self, classes: Classes, vocabulary: Vocabulary) -> Classes:
        """With what the model knows of its own scores; the caller's own background takes the place of the rivals."""
        calibration, rivals, texts = self.settings.calibration, None, vocabulary.texts
        if calibration.rivals and not vocabulary.background:
            others = Vocabulary.parse(calibration.rivals, templates=vocabulary.templates)
            rivals, texts = embed_vocabulary(others, self.text, cache=self.cache), (*texts, *others.texts)
        return calibrated(classes, texts, rivals, calibration)

    @torch.inference_mode()
    def look(
        self,
        photos: Sequence[Photo],
        masks: Sequence[Masks | None] | None = None,
        *,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: str | TwoStream = "one-pass",
    ) -> list[Look]:
        """Everything up to the region embeddings, of some photos; see ``segment`` for the arguments."""
        stream = TwoStream.parse(classifier)
        severed = Severance.parse(severance, self.settings.severance)
        read = [read_photo(photo) for photo in photos]
        resized = [resize_photo(photo, self.settings.resize) for photo in read]
        canvases = [canvas_of(photo, self.settings.resize) for photo in read]
        looks: list[Look | None] = [None] * len(read)
        given = list(masks) if masks is not None else [None] * len(read)
        for group in groups_of(canvases, given):
            scenes = [canvases[index] for index in group]
            small = [resized[index] for index in group]
            # One tensor for proposer and encoder where they want the same: a trunk that both share then works once.
            pixels = self._pixels(small, self.encoder.normalization) if stream is None else None
            proposals = self._proposals([given[index] for index in group], scenes, small, pixels)
            if pixels is not None:
                found = one_pass(self.encoder, self.anchors, self.settings, pixels, scenes, proposals, severed, anchors)
            else:
                assert stream is not None
                found = crop_each(self.encoder, small, scenes, proposals, stream, self.device, self.dtype)
            for index, look in zip(group, found, strict=True):
                source = photos[index]
                path = str(source) if isinstance(source, (str, Path)) else None
                looks[index] = replace(look, photo=read[index], source=path)
        return [look for look in looks if look is not None]

    @torch.inference_mode()
    def name(
        self,
        look: Look,
        vocabulary: Vocabulary,
        classes: Classes | None = None,
        *,
        mode: str = "semantic",
        threshold: float | None = None,
    ) -> Segmentation:
        """Name what was seen; see ``segment`` for the arguments. ``classes``: of ``embed``, where at hand."""
        votes = self.votes(look, classes or self.embed(vocabulary))
        calibration = self.settings.calibration
        threshold = self.settings.threshold if threshold is None else threshold
        least = calibration.raw(threshold)
        photo, names = look.photo, vocabulary.names
        settings = {
            "model": self.card.name,
            **look.settings,
            "templates": list(vocabulary.templates) if self.text.uses_templates else None,
            "synonyms": vocabulary.synonyms,
            "background": list(vocabulary.background),
            "threshold": threshold,
        }
        things = np.array(vocabulary.things, dtype=bool)
        smallest = self.settings.smallest_island
        if mode == "semantic":
            labels, confidence = assembly.semantic(
                votes,
                look.proposals,
                look.canvas,
                threshold=least,
                claim=self.settings.claim,
                none_competes=bool(vocabulary.background),
                smallest_island=smallest,
            )
            found = Segmentation.from_semantic(
                photo, names, labels, confidence, settings, isthing=vocabulary.things, source=look.source
            )
        elif mode == "panoptic":
            segments, pieces = assembly.panoptic(
                votes, look.proposals, look.canvas, things, threshold=least, smallest_island=smallest
            )
            found = Segmentation.from_panoptic(photo, names, segments, pieces, settings, source=look.source)
        else:
            masks = assembly.instances(votes, look.proposals, look.canvas, things, threshold=least)
            found = Segmentation.from_instances(photo, names, masks, settings, source=look.source)
        if not calibration.curve:
            return found
        return replace(found, segments=[replace(own, score=calibration.score(own.score)) for own in found.segments])

    def votes(self, look: Look, classes: Classes) -> Tensor:
        """Probabilities (N, K + 1) of the names and, last, none of them, for each proposal of a look."""
        if look.valid is not None:
            # "No object" is left out of the crops' scores, but not what the caller named: the background competes.
            classes = replace(classes, names=(*classes.names, _BACKGROUND))
        logits = classify(look.regions, classes, self.no_object, self.settings.temperature)
        if look.valid is None:
            return probabilities(logits)
        scores = crop_probabilities(logits[look.valid], look.valid)
        if look.proposals.embeddings is None or look.settings["ensemble"] <= 0:
            return scores * look.valid[:, None]
        own = F.normalize(look.proposals.embeddings.float(), dim=-1)
        own_scores = probabilities(classify(own, classes, self.no_object, self.settings.temperature))[:, :-1]
        seen = torch.tensor([name in look.settings["seen"] for name in classes.names], device=scores.device)
        return ensemble(own_scores, scores, seen, look.settings["ensemble"])

    def _pixels(self, resized: Sequence[np.ndarray], normalization: Normalization) -> Tensor:
        """Photos of one padded size (B, 3, H, W), normalised and padded."""
        divisor = self.settings.resize.divisor
        return torch.stack(
            [to_pixels(photo, normalization, divisor, device=self.device, dtype=self.dtype) for photo in resized]
        )

    def _proposals(
        self,
        masks: Sequence[Masks | None],
        canvases: Sequence[Canvas],
        resized: Sequence[np.ndarray],
        pixels: Tensor | None,
    ) -> list[Proposals]:
        """The proposer's masks of photos of one padded size, or those given with them; ``pixels`` as the encoder's."""
        given = [
            given_proposals(own, canvas.photo, canvas.resized, canvas.padded).to(self.device)
            for own, canvas in zip(masks, canvases, strict=True)
            if own is not None
        ]
        if given:
            return given
        if self.proposer is None:
            raise SettingError(
                "this model has no proposer: give masks (masks=..., --masks) or load it with one (proposer=...)"
            )
        if pixels is None or self.proposer.normalization != self.encoder.normalization:
            pixels = self._pixels(resized, self.proposer.normalization)
        found = self.proposer(pixels)
        tied = self.anchors is not None and self.anchors.config.query == "slot" and self.settings.anchors == "decoder"
        return (
            [drop_redundant(proposals) for proposals in found] if self.settings.drop_redundant and not tied else found
        )

    # Saving and loading, in the hub's conventions.

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> "DeOP":
        """A model in deop's own format, from a folder or a hub repo.

        Raises:
            ModelNotFoundError: not on this machine, and the hub cannot be reached.
            CheckpointError: damaged, incomplete or of another format.
        """
        folder = Path(name)
        if not folder.is_dir():
            folder = fetch(str(name), revision or "main")
        parts, state = load_checkpoint(folder)
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
            folder: made where it is missing.
            packed: weights as int8 and float16, at about a quarter of the size and with some loss.

        Raises:
            OutputError: the folder cannot be written; nothing is left half-written.
            SettingError: the model was loaded in int8, whose weights no other machine could read.
        """
        if is_int8(self):
            raise SettingError(
                'a model in int8 cannot be saved: load it without dtype="int8" and save that, '
                "packed=True where it is to be small"
            )
        parts = Parts(self.encoder, self.text, self.proposer, self.anchors, self.no_object, self.settings, self.card)
        return save_checkpoint(parts, self.state_dict(), Path(folder), packed=packed)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, message: str = "Upload deop model") -> str:
        """Publish the model on the Hugging Face hub and return the address of the commit."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi()
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))


_BACKGROUND = "|background|"  # no name of the caller's has bars
