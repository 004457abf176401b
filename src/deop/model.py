"""The model: a photo and class names in, a label map out. docs/design.md has a diagram of the steps."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from deop.arrays import to_float32
from deop.encoders.int8 import is_int8
from deop.errors import SettingError
from deop.images.masks import Masks
from deop.images.reading import Photo
from deop.labelling.heatmaps import anchor_heatmaps
from deop.model_names import Names
from deop.networks.devices import check_finite
from deop.photo_lists import check_photos
from deop.protocols import FeatureNetwork, Proposer, TextEncoder, VisionEncoder
from deop.regions.anchors import AnchorDecoder
from deop.regions.classification import ClassTensors, cell_votes, classify, probabilities
from deop.regions.encoding import EncodedPhoto, check_anchors
from deop.regions.photos import encode_photos
from deop.regions.prior import check_prior, with_prior
from deop.regions.two_stream import TwoStream, two_stream_probabilities
from deop.results.name_lookup import find_names
from deop.settings import Card, Settings
from deop.severance import Severance
from deop.surface import ModelSurface
from deop.text.embedded_classes import Classes
from deop.text.embedding_cache import EmbeddingCache
from deop.text.vocabulary import Vocabulary
from deop.weights.pretrained import Pretrained

__all__ = ["DeOP", "Names"]


class DeOP(Pretrained, ModelSurface):
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
        self.proxy: FeatureNetwork | None = None
        self.cache: EmbeddingCache | None = EmbeddingCache()
        self._last_tensors: tuple[Classes, torch.device, ClassTensors] | None = None
        if self.settings.anchors == "decoder" and anchors is None:
            raise SettingError('the settings have anchors="decoder", but the model has no anchor decoder: use "pool"')

    def set_proposer(self, proposer: Proposer | None) -> None:
        """Replace the proposer by a module or any other object with that protocol; None: masks must be given."""
        del self.proposer  # torch only allows to replace a module by a module
        self.proposer = proposer

    def set_proxy(self, proxy: FeatureNetwork | None) -> None:
        """Set the second network whose features weigh attention with ``similarity="proxy"``; it is not saved."""
        del self.proxy  # torch only allows to replace a module by a module
        self.proxy = proxy

    engine = "torch"

    @property
    def precision(self) -> str:  # type: ignore[override]
        """What the encoder computes in: "float32", "float16", "bfloat16" or "int8"."""
        int8 = isinstance(self.encoder, nn.Module) and is_int8(self.encoder)
        return "int8" if int8 else str(self.dtype).removeprefix("torch.")

    @property
    def needs_masks(self) -> bool:
        """Whether masks must be given with each photo, because the model has no proposer."""
        return self.proposer is None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    def embed(self, vocabulary: Vocabulary, *, progress: bool = False) -> Classes:
        """Calibrated embeddings of a vocabulary; kept until text encoder or settings change."""
        # What the text encoder keeps for later calls must be fit for training, so it is not run in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            return super().embed(vocabulary, progress=progress)

    def class_tensors(self, vocabulary: Vocabulary) -> ClassTensors:
        """``embed`` as tensors on the model's device, where they are kept as long as the embeddings themselves."""
        classes, device, last = self.embed(vocabulary), self.device, self._last_tensors
        if last is None or last[0] is not classes or last[1] != device:
            last = (classes, device, ClassTensors.of(classes, device))
            self._last_tensors = last
        return last[2]

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
        given = check_photos(photos, masks)
        severed, stream = self.check_encoding(severance, anchors, classifier)
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
            self.proxy,
        )
        for one in encoded:
            check_finite(one.regions if one.valid is None else one.regions[one.valid], self.dtype)
        return encoded

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
        weights = None if encoded.heatmaps is None else encoded.heatmaps.float().mean(0).cpu().numpy()
        scores = self.class_probabilities(encoded, vocabulary).cpu().numpy()
        maps = anchor_heatmaps(weights, scores, encoded.canvas, chosen, encoded.cell)
        return dict(zip([vocabulary.names[k] for k in chosen], maps, strict=True))

    @torch.inference_mode()
    def class_probabilities(self, encoded: EncodedPhoto, names: Names) -> Tensor:
        """Probabilities of the names for each proposal of an encoded photo (docs/method.md §6).

        Returns:
            (N, K + 1) float32: the K names and, last, "none of these".
        """
        vocabulary = self.vocabulary(names)
        scores = self._own_probabilities(encoded, vocabulary)
        if self.settings.prior:
            scores = with_prior(scores, encoded.proposals, vocabulary, self.settings.prior)
        return scores

    def _own_probabilities(self, encoded: EncodedPhoto, vocabulary: Vocabulary) -> Tensor:
        """``class_probabilities`` without the prior of the proposer."""
        classes = self.class_tensors(vocabulary)
        if encoded.cells is not None and encoded.heatmaps is not None:
            cells = self._logits(encoded, encoded.cells, vocabulary)
            return cell_votes(cells, encoded.heatmaps.float().mean(0).flatten(1))
        if encoded.two_stream is None or encoded.valid is None:
            logits = self._logits(encoded, encoded.regions, vocabulary)
            return probabilities(logits, self.settings.logit_bias)
        if vocabulary.bank is not None and vocabulary.bank_weight != 0:
            raise SettingError("a bank does not apply to the two-stream classifier, which encodes crops: omit one")
        return two_stream_probabilities(
            encoded.regions,
            encoded.valid,
            encoded.proposals,
            classes,
            encoded.two_stream,
            self.no_object,
            self.settings.temperature,
            self.settings.logit_bias,
        )

    @torch.inference_mode()
    def cell_logits(self, encoded: EncodedPhoto, names: Names) -> tuple[np.ndarray, int] | None:
        """Logits (gh, gw, K + 1) float32 of the names at each cell of the patch grid, and the side of a cell in pixels.

        None if cells are not classified one by one (``anchors="patch"``).
        """
        if encoded.cells is None or encoded.heatmaps is None:
            return None
        logits = self._logits(encoded, encoded.cells, self.vocabulary(names))
        return logits.unflatten(0, encoded.heatmaps.shape[-2:]).cpu().numpy(), encoded.cell

    def _logits(self, encoded: EncodedPhoto, regions: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits (N, K + 1) float32 of regions (N, C), by words and by the examples of the vocabulary."""
        classes = self.class_tensors(vocabulary)

        def score(values: Tensor) -> Tensor:
            return classify(values, classes, self.no_object, self.settings.temperature)

        def score_array(values: np.ndarray) -> np.ndarray:
            return to_float32(score(torch.from_numpy(values).to(regions.device)))

        logits, examples = score(regions), self.examples(encoded, vocabulary, score_array)
        if examples is None:
            return logits
        adjusted = examples.adjust(to_float32(logits), to_float32(regions))
        return torch.from_numpy(adjusted).to(logits.device)

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
        if self.settings.prior:
            check_prior(self.proposer)
        asked = self.settings.anchors if anchors is None else anchors
        wanted = {
            'anchors="tokens"': ("region_tokens", asked == "tokens"),
            'anchors="attention-pool"': ("attention_pool", asked == "attention-pool"),
            "windows": ("windows", self.settings.windows is not None),
            f"severance {severed.name!r} with a second network": ("proxy", severed.needs_proxy),
        }
        for what, (option, used) in wanted.items():
            if used and stream is None and option not in getattr(self.encoder, "options", ()):
                raise SettingError(
                    f"this model's encoder ({type(self.encoder).__name__}) does not support {what}: use a CLIP "
                    "(--model clip-b16)"
                )
        if severed.needs_proxy and stream is None and self.proxy is None:
            raise SettingError(
                "this severance needs the features of a second network: load the model with one "
                '(proxy="facebook/dino-vitb8", --proxy)'
            )
        if stream is not None and (severance is not None or anchors is not None):
            option = "anchors" if severance is None else "severance"
            raise SettingError(f'classifier="two-stream" encodes crops, which do not use {option}: omit {option}')
        return severed, stream
