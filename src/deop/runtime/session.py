"""The networks of an exported model in ONNX Runtime: one session for each graph of its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from deop.errors import CheckpointError, DeopError, ResourceError, SettingError
from deop.networks.threads import spin_of_sessions, threads_for_sessions
from deop.runtime.config import is_file_name
from deop.runtime.files import read_checked
from deop.runtime.graph_file import references
from deop.runtime.providers import Provider, create_session, import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

Signature = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Type and shape of each input or output; None: any size."""

_PIXELS = ("tensor(float)", (1, 3, None, None))
_SIZE = ("tensor(int64)", (2,))
_MASKS = ("tensor(float)", (None, None, None))
_ROWS = ("tensor(float)", (None, None))


@dataclass(frozen=True)
class Encoded:
    """What the networks compute for one photo.

    Attributes:
        masks: (N, h, w) float32, mask logits over the padded pixels.
        regions: (N, C) float32, L2-normalised embeddings, one per mask.
    """

    masks: np.ndarray
    regions: np.ndarray


class GraphSession:
    """One graph of an exported folder. Everything about its files is checked before ONNX Runtime reads them.

    Args:
        folder: the exported folder.
        hashes: SHA-256 of the files of the folder by name, as in its config; a file that is not listed is refused.
        graph: file name of the graph.
        threads: threads of each operation; None: ``networks.threads.threads_for_sessions``.
        provider: where it computes; None: on the CPU.
        quantized: whether the graph computes in int8.

    Attributes:
        path: the graph.
        files: names of the files that were checked: the graph and its weights.

    Raises:
        CheckpointError: a file that is missing, empty, damaged, not listed, of another model, or outside the folder.
        MissingDependencyError: onnxruntime is not installed.
        SettingError: the device cannot be used.
    """

    kind: ClassVar[str]
    """What the graph computes, as its metadata says: "deop.graph"."""
    inputs: ClassVar[Signature]
    outputs: ClassVar[Signature]

    def __init__(
        self,
        folder: str | Path,
        hashes: Mapping[str, str],
        graph: str,
        *,
        threads: int | None = None,
        provider: Provider | None = None,
        quantized: bool = False,
    ) -> None:
        folder = Path(folder)
        self.path = folder / graph
        content = read_checked(folder, graph, hashes)
        weights = self._read_weights(content, folder, hashes)
        self.files = frozenset((graph, *weights))
        options = session_options(threads, quantized=quantized)
        self._session = self._create(content, weights, options, provider or Provider("cpu"))
        self._check_signature()

    @property
    def width(self) -> int:
        """Channels C of the embeddings, the last output."""
        channels: int = self._session.get_outputs()[-1].shape[1]
        return channels

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU computes, because no other device was chosen or it did not start."""
        return bool(self._session.get_providers()[0] == "CPUExecutionProvider")

    def compute(self, inputs: Mapping[str, np.ndarray], subject: str) -> list[np.ndarray]:
        """Run the graph.

        Args:
            inputs: the inputs by name.
            subject: what does not fit if memory is exhausted, for the error message.

        Returns:
            The outputs in the order of ``outputs``.

        Raises:
            ResourceError: the subject does not fit in memory.
            CheckpointError: the graph cannot be run.
        """
        try:
            results: list[np.ndarray] = self._session.run(list(self.outputs), dict(inputs))
        except Exception as error:  # onnxruntime's errors have no common base class
            text = str(error)
            if "alloc" in text.lower() or "memory" in text.lower():
                raise ResourceError(
                    f"{subject} does not fit in memory: use a smaller one, or a machine with more memory"
                ) from error
            raise CheckpointError(f"{self.path} cannot be run: {_first_line(error)}. Export it again") from error
        return results

    def _read_weights(self, graph: bytes, folder: Path, hashes: Mapping[str, str]) -> dict[str, bytes]:
        """The files that the graph refers to, by name.

        Files outside the folder, files that the config does not list, and weights of another model are refused.
        """
        try:
            locations, metadata = references(graph)
        except ValueError as error:
            raise CheckpointError(f"{self.path} is damaged: {error}. Fetch or export the folder again") from error
        kind = metadata.get("deop.graph")
        if kind is None:
            raise CheckpointError(f"{self.path} was not written by deop's export: export the model again")
        if kind != self.kind:
            raise CheckpointError(f"{self.path} is the graph {kind!r}, not {self.kind!r}: export the model again")
        for name in sorted(locations):
            if not is_file_name(name):
                raise CheckpointError(
                    f"{self.path} refers to {name!r}: expected the name of a file in the same folder. Fetch the folder "
                    "again from a source you trust"
                )
        files = {name: read_checked(folder, name, hashes) for name in sorted(locations)}
        if files and metadata.get("deop.weights.sha256") not in [hashes[name] for name in files]:
            raise CheckpointError(
                f"{self.path} belongs to other weights than {' and '.join(files)} beside it: export the model again"
            )
        return files

    def _create(
        self, graph: bytes, files: Mapping[str, bytes], options: "onnxruntime.SessionOptions", provider: Provider
    ) -> "onnxruntime.InferenceSession":
        # From memory, so that exactly the content that was checked is used, and files may be links, as in the hub's
        # cache.
        source: bytes | str = graph
        if hasattr(options, "add_external_initializers_from_files_in_memory"):
            options.add_external_initializers_from_files_in_memory(
                list(files), list(files.values()), [len(content) for content in files.values()]
            )
        else:  # onnxruntime before 1.24, such as the last one for Intel Macs and macOS 13, reads the files itself
            source = str(self.path)
        try:
            return create_session(source, options, provider)
        except DeopError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base class
            raise CheckpointError(
                f"onnxruntime {import_onnxruntime().__version__} cannot load {self.path}: {_first_line(error)}. Update "
                "onnxruntime, or export the model again"
            ) from error

    def _check_signature(self) -> None:
        for what, expected, actual in (
            ("input", self.inputs, self._session.get_inputs()),
            ("output", self.outputs, self._session.get_outputs()),
        ):
            try:
                found = {value.name: (value.type, value.shape) for value in actual}
            except UnicodeDecodeError:
                raise CheckpointError(
                    f"{self.path} is damaged: an {what} has a name or size that is not UTF-8 text"
                ) from None
            for name, (kind, shape) in expected.items():
                if name not in found:
                    raise CheckpointError(f"{self.path} has no {what} {name!r}: it is a graph of another model")
                actual_kind, actual_shape = found[name]
                fits = len(shape) == len(actual_shape) and all(
                    side in (None, actual_side) for side, actual_side in zip(shape, actual_shape, strict=True)
                )
                if actual_kind != kind or not fits:
                    raise CheckpointError(
                        f"the {what} {name!r} of {self.path} is {actual_kind} {actual_shape}: it is a graph of another "
                        "model"
                    )
            if more := sorted(set(found) - set(expected)):
                raise CheckpointError(f"{self.path} has the {what} {more[0]!r} too: it is a graph of another model")
        if not isinstance(self.width, int):
            raise CheckpointError(f"the embeddings of {self.path} have no fixed width: it is a graph of another model")


class EncodeSession(GraphSession):
    """The graph that proposes masks and embeds them."""

    kind = "encode"
    inputs: ClassVar[Signature] = {"pixels": _PIXELS, "size": _SIZE}
    outputs: ClassVar[Signature] = {"masks": _MASKS, "valid": ("tensor(bool)", (None,)), "regions": _ROWS}

    def run(self, pixels: np.ndarray, size: tuple[int, int]) -> Encoded:
        """Propose the masks of a photo and embed them.

        Args:
            pixels: (1, 3, H, W) float32, normalised and padded; the sides are those that the config allows.
            size: height and width of the photo in ``pixels``.

        Returns:
            N masks and their regions; only those of the graph's masks that are valid.

        Raises:
            SettingError: pixels of another shape or dtype.
            ResourceError: the photo does not fit in memory.
        """
        inputs = {"pixels": _checked(pixels), "size": np.array(size, np.int64)}
        masks, valid, regions = self.compute(inputs, _photo_of(size))
        if not valid.all():
            masks, regions = masks[valid], regions[valid]
        return Encoded(masks, regions)


class RegionsSession(GraphSession):
    """The graph that embeds masks that the caller gives."""

    kind = "regions"
    inputs: ClassVar[Signature] = {"pixels": _PIXELS, "size": _SIZE, "masks": _MASKS}
    outputs: ClassVar[Signature] = {"regions": _ROWS}

    def run(self, pixels: np.ndarray, size: tuple[int, int], masks: np.ndarray) -> Encoded:
        """Embed the masks of a photo.

        Args:
            pixels: as in ``EncodeSession.run``.
            size: height and width of the photo in ``pixels``.
            masks: (N, h, w) float32, mask logits over the padded pixels; N may be 0.

        Returns:
            The same masks and their regions.

        Raises:
            SettingError, ResourceError: as in ``EncodeSession.run``.
        """
        if not len(masks):
            return Encoded(masks, np.zeros((0, self.width), np.float32))
        inputs = {"pixels": _checked(pixels), "size": np.array(size, np.int64), "masks": masks}
        return Encoded(masks, *self.compute(inputs, _photo_of(size)))


class TextSession(GraphSession):
    """The text tower of a CLIP."""

    kind = "text"
    inputs: ClassVar[Signature] = {"tokens": ("tensor(int64)", (None, None))}
    outputs: ClassVar[Signature] = {"embeddings": _ROWS}

    @property
    def length(self) -> int | None:
        """The number of tokens of each text that the graph takes; None: any."""
        side = self._session.get_inputs()[0].shape[1]
        return side if isinstance(side, int) else None

    def run(self, tokens: np.ndarray) -> np.ndarray:
        """Embed n texts.

        Args:
            tokens: (n, length) int64.

        Returns:
            (n, C) float32, not normalised.
        """
        return self.compute({"tokens": tokens}, f"the embedding of {len(tokens)} texts")[0]


def session_options(threads: int | None, *, quantized: bool = False) -> "onnxruntime.SessionOptions":
    """Options of a session for photos of many sizes.

    Memory is not planned for each size, so that it does not grow with the number of sizes. It is kept in an arena
    between operations and photos: without one, the system would map and clear it again for each large tensor, which
    takes a fifth of the time and leads to a higher peak. Threads that wait spin for a short time only
    (``networks.threads.spin_of_sessions``). Packed weights are unpacked once, at load, not before each use.

    Args:
        threads: threads of each operation; None: ``networks.threads.threads_for_sessions``.
        quantized: whether the graph computes in int8, for which pairs of (de)quantisation are merged with operations.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    onnxruntime = import_onnxruntime()
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_for_sessions() if threads is None else threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    spin = spin_of_sessions(onnxruntime.__version__)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    if spin:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin))
    options.add_session_config_entry("session.disable_quant_qdq", "0" if quantized else "1")
    return options


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.float32 or pixels.ndim != 4 or pixels.shape[:2] != (1, 3):
        raise SettingError(f"pixels of shape {pixels.shape} and dtype {pixels.dtype}: expected (1, 3, H, W) float32")
    return pixels


def _photo_of(size: tuple[int, int]) -> str:
    return f"a photo of {size[1]} x {size[0]} px"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
