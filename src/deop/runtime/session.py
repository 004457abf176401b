"""The networks of an exported model in ONNX Runtime: pixels of a photo -> masks and region embeddings."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import CheckpointError, MissingDependencyError, ResourceError, SettingError
from deop.runtime.graph_file import references

if TYPE_CHECKING:
    import onnxruntime

GRAPH = "encode.onnx"
WEIGHTS = "model.safetensors"
_INPUTS = {"pixels": ("tensor(float)", (1, 3, None, None)), "size": ("tensor(int64)", (2,))}
_OUTPUTS = {
    "masks": ("tensor(float)", (None, None, None)),
    "valid": ("tensor(bool)", (None,)),
    "regions": ("tensor(float)", (None, None)),
}
_MULTIPLE = 32


@dataclass(frozen=True)
class Encoded:
    """What the networks compute for one photo.

    Attributes:
        masks: (N, h, w) float32, mask logits over the padded pixels.
        regions: (N, C) float32, L2-normalised embeddings, one per mask.
    """

    masks: np.ndarray
    regions: np.ndarray


class EncodeSession:
    """The graph ``encode.onnx`` of an exported folder, with its weights in ``model.safetensors``.

    Everything about the files is checked before ONNX Runtime reads them.

    Args:
        folder: the exported folder.
        hashes: SHA-256 of the files of the folder by name, as in its config; a file that is not listed is refused.
        threads: threads of each operation; None: as many as ONNX Runtime chooses, the number of physical cores.
        providers: execution providers of ONNX Runtime, the preferred first.

    Raises:
        CheckpointError: a file that is missing, empty, damaged, not listed, of another model, or outside the folder.
        MissingDependencyError: onnxruntime is not installed.
        SettingError: an execution provider that is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        hashes: Mapping[str, str],
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        folder = Path(folder)
        self.path = folder / GRAPH
        graph = _verified(folder, GRAPH, hashes)
        weights = self._read_weights(graph, folder, hashes)
        self._session = _create(graph, weights, folder, session_options(threads), providers)
        self._check_signature()

    @property
    def width(self) -> int:
        """Channels C of the region embeddings."""
        channels: int = self._session.get_outputs()[2].shape[1]
        return channels

    def run(self, pixels: np.ndarray, size: tuple[int, int]) -> Encoded:
        """Propose the masks of a photo and embed them.

        Args:
            pixels: (1, 3, H, W) float32, normalised and padded; H and W are multiples of 32, at least 64.
            size: height and width of the photo in ``pixels``.

        Returns:
            N masks and their regions; only those of the graph's masks that are valid.

        Raises:
            SettingError: pixels of another shape or dtype.
            ResourceError: the photo does not fit in memory.
        """
        shape = pixels.shape
        if pixels.dtype != np.float32 or len(shape) != 4 or shape[:2] != (1, 3) or any(side % 32 for side in shape[2:]):
            raise SettingError(
                f"pixels of shape {shape} and dtype {pixels.dtype}: expected (1, 3, H, W) float32 with H and W "
                f"multiples of {_MULTIPLE}"
            )
        if min(shape[2:]) < 2 * _MULTIPLE:
            # Wider padding changes nothing inside ``size`` but rounding, and the graph needs two cells of 32 pixels.
            bottom, right = (max(0, 2 * _MULTIPLE - side) for side in shape[2:])
            pixels = np.pad(pixels, ((0, 0), (0, 0), (0, bottom), (0, right)))
        try:
            masks, valid, regions = self._session.run(
                list(_OUTPUTS), {"pixels": pixels, "size": np.array(size, np.int64)}
            )
        except Exception as error:  # onnxruntime's errors have no common base class
            text = str(error)
            if "alloc" in text.lower() or "memory" in text.lower():
                raise ResourceError(
                    f"a photo of {size[1]} x {size[0]} px does not fit in memory: resize it, or use a machine with "
                    "more memory"
                ) from error
            raise CheckpointError(f"{self.path} cannot be run: {_first_line(error)}. Export it again") from error
        if not valid.all():
            masks, regions = masks[valid], regions[valid]
        return Encoded(masks, regions)

    def _read_weights(self, graph: bytes, folder: Path, hashes: Mapping[str, str]) -> dict[str, bytes]:
        """The files that the graph refers to, by name.

        Files outside the folder, files that the config does not list, and weights of another model are refused.
        """
        try:
            locations, metadata = references(graph)
        except ValueError as error:
            raise CheckpointError(f"{self.path} is damaged: {error}. Fetch or export the folder again") from error
        if metadata.get("deop.graph") != "encode":
            raise CheckpointError(f"{self.path} was not written by deop's export: export the model again")
        for name in sorted(locations):
            if name in ("", ".", "..") or set(name) & set("/\\:\0"):
                raise CheckpointError(
                    f"{self.path} refers to {name!r}: expected the name of a file in the same folder. Fetch the folder "
                    "again from a source you trust"
                )
        exported_with = metadata.get("deop.weights.sha256")
        files = {name: _verified(folder, name, hashes) for name in sorted(locations)}
        if WEIGHTS in files and exported_with != hashes[WEIGHTS]:
            raise CheckpointError(
                f"{self.path} belongs to other weights than {WEIGHTS} beside it: export the model again"
            )
        return files

    def _check_signature(self) -> None:
        for what, expected, actual in (
            ("input", _INPUTS, self._session.get_inputs()),
            ("output", _OUTPUTS, self._session.get_outputs()),
        ):
            found = {value.name: (value.type, value.shape) for value in actual}
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
        if not isinstance(self._session.get_outputs()[2].shape[1], int):
            raise CheckpointError(f"the regions of {self.path} have no fixed width: it is a graph of another model")


def _verified(folder: Path, name: str, hashes: Mapping[str, str]) -> bytes:
    """The content of a file of the folder, after its SHA-256 was checked."""
    path = folder / name
    if name not in hashes:
        raise CheckpointError(f"{path} is not listed in the config of its folder. Fetch or export the folder again")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {name}. Fetch or export the folder again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not content:
        raise CheckpointError(f"{path} is empty: it was not written completely. Fetch or export the folder again")
    actual = hashlib.sha256(content).hexdigest()
    if actual != hashes[name]:
        raise CheckpointError(
            f"{path} is damaged or belongs to another model: its SHA-256 is {actual[:12]}..., and the config says "
            f"{hashes[name][:12]}.... Fetch or export the folder again"
        )
    return content


def _create(
    graph: bytes,
    files: Mapping[str, bytes],
    folder: Path,
    options: "onnxruntime.SessionOptions",
    providers: Sequence[str],
) -> "onnxruntime.InferenceSession":
    import onnxruntime

    available = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in available:
            raise SettingError(f"{provider} is not installed: this onnxruntime has {', '.join(available)}")
    # From memory, so that exactly the content that was checked is used, and files may be links, as in the hub's cache.
    options.add_external_initializers_from_files_in_memory(
        list(files), list(files.values()), [len(content) for content in files.values()]
    )
    try:
        session: Any = onnxruntime.InferenceSession(graph, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors have no common base class
        raise CheckpointError(
            f"onnxruntime {onnxruntime.__version__} cannot load {folder / GRAPH}: {_first_line(error)}. Update "
            "onnxruntime, or export the model again"
        ) from error
    return session


def session_options(threads: int | None) -> "onnxruntime.SessionOptions":
    """Options of a session for photos of many sizes.

    Memory is neither planned for each size nor kept in an arena between photos, so that it does not grow with the
    number of sizes. Threads sleep while they wait: on a busy machine, threads that spin make two threads
    slower than one. Packed weights are unpacked once, at load, not before each use.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("exported models need onnxruntime: pip install onnxruntime") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
