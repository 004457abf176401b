"""An exported model in ONNX Runtime, with the same interface as ``DeOP`` and the same results."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from deop.errors import CheckpointError, SettingError
from deop.images.canvas import Canvas
from deop.images.masks import LOGIT_LIMIT, Masks, as_masks, cell_logits, partition_masks
from deop.images.preprocessing import pixel_array, resize_photo
from deop.images.reading import Photo, read_photo
from deop.labelling.classification import classify, probabilities
from deop.labelling.masks import PhotoMasks
from deop.model_names import Names
from deop.networks.threads import check_threads
from deop.photo_lists import check_photos
from deop.runtime.config import Graphs, RuntimeConfig, read_runtime_config
from deop.runtime.engine import torch_remedy
from deop.runtime.files import check_files
from deop.runtime.providers import choose_provider
from deop.runtime.session import Encoded, EncodeSession, GraphSession, RegionsSession, TextSession
from deop.runtime.text import read_text_encoder
from deop.severance import Severance
from deop.surface import ModelSurface
from deop.text.embedding_cache import EmbeddingCache

if TYPE_CHECKING:
    from deop.regions.two_stream import TwoStream

S = TypeVar("S", bound=GraphSession)

_IN_GRAPHS = (
    "severance", "anchors", "token_weight", "windows", "padding", "normalize_patches", "drop_redundant", "partition",
)  # fmt: skip
"""Fields of the settings that cannot be changed after the export."""

_ONLY_IN_TORCH = frozenset(
    ("encoder", "proposer", "anchors", "no_object", "dtype", "set_proposer", "anchor_heatmaps", "class_tensors", "to",
     "cuda", "save_pretrained", "push_to_hub", "train", "eval", "parameters", "state_dict")
)  # fmt: skip
"""Attributes of ``DeOP`` that this class lacks."""


@dataclass(frozen=True)
class EncodedPhoto:
    """Everything that a model computes for one photo before it needs names; ``Model.label`` turns it into a result.

    Attributes:
        photo: (H, W, 3) uint8.
        canvas: position of the photo in the masks.
        masks: N masks.
        regions: (N, C) float32, L2-normalised embeddings, one per mask.
        settings: options that were used, as reported in the result.
        source: path of the photo, or None if it was not a file.
        masks_are_instances: whether each mask of a thing is one whole thing; True for given masks.
    """

    photo: np.ndarray
    canvas: Canvas
    masks: PhotoMasks
    regions: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    masks_are_instances: bool = True


class Model(ModelSurface):
    """A model of a folder with ONNX graphs, which ``deop.load`` returns where no torch is needed.

    Args:
        config: description of the folder, from ``read_runtime_config``.
        precision: "float32", "float16" or "int8"; None: the folder's first one.
        device: "auto", "cpu", "cuda", "webgpu", "coreml" or "directml"; None: as "auto" (``runtime.providers``).
        threads: threads of the CPU that compute; None: as many as there are cores.
        given_masks: whether masks are given with each photo, so that the graph that proposes masks is not loaded.

    Attributes:
        config: the description of the folder.
        precision: the precision of the graphs.

    Raises:
        CheckpointError: files that are missing, empty, changed, or of another model.
        SettingError: a precision that the folder does not have, or a device that is unknown or does not work.
        MissingDependencyError: a library that is not installed, such as that of a device.
    """

    engine = "onnx"
    default_batch = 1

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        given_masks: bool = False,
    ) -> None:
        parts = config.onnx
        if precision is not None and precision not in parts.graphs:
            raise SettingError(
                f"{config.folder} has graphs in {' and '.join(parts.graphs)}, not in {precision}: choose one of these, "
                f"or {torch_remedy()}"
            )
        self.config = config
        self.precision = precision or next(iter(parts.graphs))
        self.settings, self.card = config.settings, config.card
        self.cache = EmbeddingCache()
        graphs = parts.graphs_of(precision)
        self._graphs: Graphs = replace(graphs, encode=None) if given_masks else graphs
        self._provider, self._threads = choose_provider(device), check_threads(threads)
        self._no_object = None if parts.no_object is None else np.array(parts.no_object, np.float32)
        # The first session checks its own files, as they are read; all others are checked before anything runs.
        first: GraphSession = self._encoder if self._graphs.encode else self._region_encoder
        check_files(config.folder, sorted(set(parts.files) - set(first.files)), parts.files)
        if first.width != parts.text.width:
            raise CheckpointError(
                f"{first.path} computes {first.width} channels, and the text encoder has {parts.text.width}: it is the "
                "graph of another model. Fetch or export the folder again"
            )
        self.device = "cpu" if first.on_cpu else self._provider.device
        self.text = read_text_encoder(config.folder, parts, lambda: self._open(TextSession, parts.text.graph))

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> "Model":
        """The model of a folder that ``deop export`` wrote; options and errors are those of the class."""
        return cls(read_runtime_config(folder), **options)

    def __getattr__(self, name: str) -> NoReturn:
        if name in _ONLY_IN_TORCH:
            raise AttributeError(f"models of ONNX Runtime have no {name!r}: {torch_remedy()}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def needs_masks(self) -> bool:
        """Whether masks must be given with each photo, because the model has no proposer."""
        return self._graphs.encode is None

    @cached_property
    def _encoder(self) -> EncodeSession:
        return self._open(EncodeSession, self._graphs.encode or "")

    @cached_property
    def _region_encoder(self) -> RegionsSession:
        if self._graphs.regions is None:
            raise SettingError(f"this model was exported without a graph for given masks: {torch_remedy()}")
        return self._open(RegionsSession, self._graphs.regions)

    def _open(self, kind: type[S], graph: str) -> S:
        return kind(
            self.config.folder,
            self.config.onnx.files,
            graph,
            threads=self._threads,
            provider=self._provider,
            quantized=self.precision == "int8",
        )

    def check_encoding(
        self,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: "str | TwoStream" = "one-pass",
    ) -> None:
        """Check the options of ``encode`` before photos are read.

        Raises:
            SettingError: an unknown value, or one that the graphs do not compute.
        """
        super().check_encoding(severance, anchors, classifier)
        if not isinstance(classifier, str) or classifier != "one-pass":
            raise SettingError(f"the two-stream classifier needs torch: {torch_remedy()}")
        if self.settings.prior:
            raise SettingError(
                f"prior {self.settings.prior} mixes the class scores of the proposer, which graphs do not compute: set "
                f"it to 0, or {torch_remedy()}"
            )
        severed = Severance.parse(severance, self.settings.severance)
        asked = replace(self.settings, severance=severed, anchors=anchors or self.settings.anchors)
        for name in _IN_GRAPHS:
            if getattr(asked, name) != (value := getattr(self.config.settings, name)):
                shown = value.kind if isinstance(value, Severance) else value
                raise SettingError(
                    f"this model was exported with {name} {shown!r}, which is part of its graph: to change it, "
                    f"{torch_remedy()}"
                )

    def encode(
        self,
        photos: Sequence[Photo],
        masks: Sequence[Masks | None] | None = None,
        *,
        severance: str | Severance | None = None,
        anchors: str | None = None,
        classifier: "str | TwoStream" = "one-pass",
    ) -> list[EncodedPhoto]:
        """Compute everything that does not depend on names: the expensive part of ``segment``.

        Args:
            photos: any number of photos, which are processed one by one.
            masks: masks for each photo, or None for the proposer's.
            severance: None, or that of the exported model.
            anchors: None, or those of the exported model.
            classifier: "one-pass".

        Returns:
            One ``EncodedPhoto`` per photo, to be passed to ``label`` any number of times.

        Raises:
            ImageError, ProposalError, SettingError: naming the input and the remedy.
        """
        given = check_photos(photos, masks)
        self.check_encoding(severance, anchors, classifier)
        if self.needs_masks and any(one is None for one in given):
            raise SettingError("this model has no proposer: give masks (masks=..., --masks)")
        return [self._encode(photo, one) for photo, one in zip(photos, given, strict=True)]

    def _encode(self, photo: Photo, masks: Masks | None) -> EncodedPhoto:
        array = read_photo(photo)
        pixels, canvas = self._prepare(array)
        if masks is None:
            encoded, exact = self._encoder.run(pixels, canvas.resized), None
        else:
            exact = as_masks(masks, canvas.photo)
            if self.settings.partition == "score":
                exact = partition_masks(exact)
            logits = cell_logits(exact, canvas.resized, canvas.padded)
            encoded = self._region_encoder.run(pixels, canvas.resized, logits)
            # A mask without a pixel has the embedding 0, as in torch.
            covers = np.asarray((logits > -LOGIT_LIMIT).any((1, 2)))
            encoded = replace(encoded, regions=encoded.regions * covers[:, None])
        if not np.isfinite(encoded.regions).all():
            raise CheckpointError(
                "this model computes values that are not finite: its weights are damaged. Fetch or export it again"
            )
        return EncodedPhoto(
            array,
            canvas,
            PhotoMasks(encoded.masks, exact),
            encoded.regions,
            self._record(encoded),
            str(photo) if isinstance(photo, (str, Path)) else None,
            masks is not None or self.config.onnx.masks_are_instances,
        )

    def _prepare(self, photo: np.ndarray) -> tuple[np.ndarray, Canvas]:
        """The input (1, 3, H'', W'') of the graphs, and where the photo lies in it."""
        parts = self.config.onnx
        resized = resize_photo(photo, self.settings.resize)
        pixels = pixel_array(resized, parts.normalization, lcm(self.settings.resize.divisor, parts.multiple))
        # More padding changes nothing inside the photo but rounding.
        bottom, right = (max(0, parts.smallest - side) for side in pixels.shape[1:])
        if bottom or right:
            pixels = np.pad(pixels, ((0, 0), (0, bottom), (0, right)))
        height, width = pixels.shape[1:]
        canvas = Canvas((photo.shape[0], photo.shape[1]), (resized.shape[0], resized.shape[1]), (height, width))
        return pixels[None], canvas

    def _record(self, encoded: Encoded) -> dict[str, Any]:
        """How a photo was encoded, with the keys that torch's results have."""
        return {
            "classifier": "one-pass",
            **self.settings.severance.record(),
            "anchors": self.settings.anchors,
            "proposals": len(encoded.masks),
            **({} if self.settings.partition == "none" else {"partition": self.settings.partition}),
        }

    def class_probabilities(self, encoded: EncodedPhoto, names: Names) -> np.ndarray:
        """Probabilities of the names for each proposal of an encoded photo (docs/method.md §6).

        Returns:
            (N, K + 1) float32: the K names and, last, "none of these".
        """
        vocabulary = self.vocabulary(names)
        classes = self.embed(vocabulary)

        def score(regions: np.ndarray) -> np.ndarray:
            return classify(regions, classes, self._no_object, self.settings.temperature)

        logits, examples = score(encoded.regions), self.examples(encoded, vocabulary, score)
        if examples is not None:
            logits = examples.adjust(logits, encoded.regions)
        return probabilities(logits, self.settings.logit_bias, in_place=True)
