"""Masks given by the caller: ground truth, output of another program, files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from deop.array_files import load_arrays
from deop.errors import DeopError, ImageError, ProposalError
from deop.images.collection import collect
from deop.images.id_maps import read_id_map

if TYPE_CHECKING:
    from torch import Tensor

LOGIT_LIMIT = 20.0
"""Logit of a fully covered cell; its negative is that of a cell without coverage or in the padding."""

Masks = Union[np.ndarray, "Tensor", Sequence[Any]]
"""Masks in any form that ``as_masks`` accepts."""


def cell_logits(
    masks: np.ndarray,
    input_shape: tuple[int, int],
    padded_shape: tuple[int, int],
    stride: int = 4,
) -> np.ndarray:
    """Masks at the size of a photo as logits over the cells of a network input.

    A cell's probability p is the share of its area inside the photo that the mask covers (exact area average, not
    antialiasing); its logit is log(p / (1 - p)), clamped to [-20, 20]. Cells in the padding have -20.

    Args:
        masks: (N, H, W) bool.
        input_shape: (H', W') of the photo after resizing.
        padded_shape: (H'', W'') of the network input, H'' >= H', W'' >= W'.
        stride: side of a cell in pixels of the network input.

    Returns:
        (N, ceil(H''/stride), ceil(W''/stride)) float32.
    """
    rows, columns = (
        _cell_shares(photo, resized, padded, stride)
        for photo, resized, padded in zip(masks.shape[1:], input_shape, padded_shape, strict=True)
    )
    across = np.zeros((masks.shape[2], len(columns)), np.float32)
    for cell, (pixels, shares) in enumerate(columns):
        across[pixels, cell] = shares
    logits = np.empty((len(masks), len(rows), len(columns)), np.float32)
    down = np.zeros((len(rows), masks.shape[2]), np.float32)
    for mask, cells in zip(masks, logits, strict=True):
        for cell, (pixels, shares) in enumerate(rows):  # a few rows at a time, to avoid a float copy of all masks
            np.matmul(shares, mask[pixels].astype(np.float32), out=down[cell])
        cells[:] = _logit(down @ across)
    return logits


def _cell_shares(photo: int, resized: int, padded: int, stride: int) -> list[tuple[slice, np.ndarray]]:
    """The pixels of the photo in each cell along one side, and their shares of it, float32.

    The shares of a cell add up to 1; cells in the padding have no pixels.
    """
    edges = np.minimum(np.arange(-(-padded // stride) + 1) * stride, resized) * (photo / resized)
    cells = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        first, last = (int(start), min(photo, math.ceil(end))) if end > start else (0, 0)
        pixels = np.arange(first, last)
        overlap = np.minimum(pixels + 1, end) - np.maximum(pixels, start)
        cells.append((slice(first, last), (overlap / overlap.sum() if len(overlap) else overlap).astype(np.float32)))
    return cells


def _logit(share: np.ndarray) -> np.ndarray:
    share = share.round(6).clip(0.0, 1.0)  # removes rounding errors of cells that are fully covered
    with np.errstate(divide="ignore"):
        return np.clip(np.log(share) - np.log1p(-share), -LOGIT_LIMIT, LOGIT_LIMIT)


def partition_masks(masks: np.ndarray) -> np.ndarray:
    """Give each pixel to the smallest of the masks that contain it; of masks of one size, to the first.

    Masks that a caller gives have no scores, so that this is what ``deop.proposals.partition`` does for equal ones.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, H, W) bool, disjoint; masks may be empty.

    >>> partition_masks(np.array([[[True, True, True]], [[False, True, False]]])).astype(int).tolist()
    [[[1, 0, 1]], [[0, 1, 0]]]
    """
    owner = np.full(masks.shape[1:], -1, np.int32)
    areas = [np.count_nonzero(mask) for mask in masks]
    for index in sorted(range(len(masks)), key=lambda index: (-areas[index], -index)):
        owner[masks[index]] = index
    result = np.empty_like(masks)
    for index, mask in enumerate(result):
        np.equal(owner, index, out=mask)
    return result


def as_masks(masks: Masks, photo_shape: tuple[int, int] | None = None) -> np.ndarray:
    """Convert masks of any accepted form to one array.

    Args:
        masks: (N, H, W) bool, 0/1 or uint8 (non-zero = mask), a sequence of (H, W) or of SAM's annotations, or an
            integer label map (H, W) with one mask per positive id. Arrays or tensors.
        photo_shape: (H, W) that the masks must have; None: any.

    Returns:
        (N, H, W) bool.

    Raises:
        ProposalError: masks of another size or form, or values that are neither masks nor ids.

    >>> as_masks(np.array([[0, 2], [2, 5]])).shape
    (2, 2, 2)
    """
    masks = _without_torch(masks)
    if not isinstance(masks, np.ndarray):
        masks = _stack(masks, photo_shape)
    if masks.ndim not in (2, 3):
        raise ProposalError(f"masks have shape {masks.shape}: give (N, H, W), a list of (H, W) or a label map (H, W)")
    if photo_shape is not None and masks.shape[-2:] != tuple(photo_shape):
        raise _wrong_size(masks.shape[-2:], photo_shape)
    _check_values(masks)
    if masks.dtype == bool:
        return masks if masks.ndim == 3 else masks[None]
    if masks.ndim == 3:
        return masks != 0
    ids = np.unique(masks)
    ids = ids[ids != 0]
    return _fill((masks == i for i in ids), len(ids), masks.shape)


def _fill(planes: Iterable[np.ndarray], count: int, shape: tuple[int, ...]) -> np.ndarray:
    """``numpy.stack`` of bool planes that are computed one at a time, so that they are not all in memory twice."""
    stacked = np.empty((count, *shape), bool)
    for target, plane in zip(stacked, planes, strict=True):
        target[:] = plane
    return stacked


def _stack(masks: Any, photo_shape: tuple[int, int] | None) -> np.ndarray:
    if isinstance(masks, str | Path):
        raise ProposalError(
            f"masks are a path, {masks}: read the file first with deop.images.masks.read_masks({str(masks)!r})"
        )
    if isinstance(masks, set | frozenset):
        raise ProposalError("the masks are a set, which has no order: give a list, so that masks keep their numbers")
    if not hasattr(masks, "__len__") or isinstance(masks, Mapping):
        raise ProposalError(f"masks are a {type(masks).__name__}: give (N, H, W), a list of (H, W) or a label map")
    if len(masks) == 0:
        return np.zeros((0, *(photo_shape or (0, 0))), bool)
    planes = [_plane(mask) for mask in masks]
    for plane in planes:
        if plane.ndim != 2:
            raise ProposalError(f"a mask in the list has shape {plane.shape}: each must be (H, W)")
        if plane.shape != tuple(photo_shape or planes[0].shape):
            raise _wrong_size(plane.shape, photo_shape or planes[0].shape)
        _check_values(plane)
    return _fill((plane != 0 for plane in planes), len(planes), planes[0].shape)


def _plane(mask: Any) -> np.ndarray:
    """A mask of a list as an array: an array, a tensor, or an annotation with a "segmentation", as SAM returns them."""
    if isinstance(mask, Mapping):
        mask = mask.get("segmentation")
        if isinstance(mask, Mapping):
            from deop.images.rle import decode_rle

            try:
                return decode_rle({**mask, "counts": _text(mask["counts"])})
            except (DeopError, KeyError, TypeError, ValueError) as error:
                raise ProposalError(f"a mask in the list has a damaged RLE: {error}") from error
        if not isinstance(_without_torch(mask), np.ndarray):
            raise ProposalError(
                'a mask in the list is a dictionary without a mask: its "segmentation" must be an array (H, W) or an '
                "RLE; draw polygons as arrays first"
            )
    return np.asarray(_without_torch(mask))


def _without_torch(masks: Any) -> Any:
    """A tensor as an array, on the CPU without a copy; other values as they are."""
    return masks.detach().cpu().numpy() if hasattr(masks, "detach") else masks


def _text(counts: Any) -> Any:
    """The counts of an RLE, of which pycocotools gives the compressed form as bytes."""
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _check_values(masks: np.ndarray) -> None:
    if masks.dtype == bool or masks.size == 0:
        return
    if masks.dtype.kind not in "uif":
        raise ProposalError(f"masks have dtype {masks.dtype}: give bool, integers, or floats that are 0 or 1")
    if masks.dtype.kind == "f" and not all(((row == 0) | (row == 1)).all() for row in masks):
        raise ProposalError("float masks must contain only 0 and 1: apply a threshold first, for example masks > 0.5")
    if masks.min() < 0:
        raise ProposalError(
            "masks contain negative ids, but ids start at 1 and 0 means no mask: add 1 to a label map that uses -1"
        )


def _wrong_size(size: tuple[int, ...], expected: tuple[int, ...]) -> ProposalError:
    return ProposalError(
        f"masks are {size[0]} x {size[1]} (height x width), the photo is {expected[0]} x {expected[1]}: "
        "give masks at the size of the photo"
    )


def read_masks(path: str | Path) -> np.ndarray:
    """Read masks from a file or a directory.

    Args:
        path: an image whose pixels are ids (0 = no mask), as ``images.id_maps.read_id_map`` reads it; a ``.npy`` or
            ``.npz`` file with (N, H, W) masks or a label map (H, W); or a directory of images with one mask each
            (non-zero = mask), sorted by name.

    Returns:
        (N, H, W) bool.

    Raises:
        ProposalError: missing, unreadable, or of an unsupported form.
    """
    path = Path(path)
    try:
        exists = path.exists()
    except OSError as error:
        raise ProposalError(f"cannot read masks from {path}: {error.strerror or error}") from error
    if not exists:
        raise ProposalError(f"no masks at {path}: no such file or directory")
    if path.is_dir():
        return _read_directory(path)
    masks = _read_array(path) if path.suffix.lower() in (".npy", ".npz") else _read_plane(path)
    try:
        return as_masks(masks)
    except ProposalError as error:
        raise ProposalError(f"{path}: {error}") from error


def _read_directory(path: Path) -> np.ndarray:
    """One mask from each image of a directory."""
    try:
        found = collect(path, recursive=False, unique=False)
    except OSError as error:
        raise ProposalError(f"cannot read masks from {path}: {error.strerror or error}") from error
    for entry in found.left_out:
        if entry.path.suffix.lower() in (".npy", ".npz"):
            raise ProposalError(f"{entry.path} is in a directory with one mask per image: give it by itself")
    files = found.files
    if not files:
        raise ProposalError(f"no masks in {path}: expected PNG files with one mask each")
    shape = _read_plane(files[0]).shape
    return _fill((_read_one(file, files[0], shape) for file in files), len(files), shape)


def _read_one(file: Path, first: Path, shape: tuple[int, ...]) -> np.ndarray:
    plane = _read_plane(file)
    if plane.shape != shape:
        raise ProposalError(
            f"{file} has size {plane.shape}, but {first.name} has {shape} (height, width): all masks need one size"
        )
    return plane != 0


def _read_plane(path: Path) -> np.ndarray:
    try:
        return read_id_map(path)
    except ImageError as error:
        raise ProposalError(str(error)) from error


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = load_arrays(path)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if "masks" not in names and len(names) != 1:
                raise ProposalError(
                    f"{path} contains {', '.join(names) or 'no array'}: name the array of masks 'masks'"
                )
            return loaded["masks" if "masks" in names else names[0]]
    except (ProposalError, MemoryError):
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds of exceptions for damaged data
        raise ProposalError(f"cannot read masks from {path}: {error}") from error
