"""Masks the caller already has: ground truth, another program's, files on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from scipy import sparse
from torch import Tensor

from deop.errors import ProposalError
from deop.proposals.types import Proposals

LOGIT_LIMIT = 20.0
"""Logit of a cell that is wholly covered; minus this for one that is not covered at all, or lies in the padding."""

Masks = np.ndarray | Tensor | Sequence[Any]


def given_proposals(
    masks: Masks,
    photo_shape: tuple[int, int],
    input_shape: tuple[int, int],
    padded_shape: tuple[int, int],
    stride: int = 4,
) -> Proposals:
    """Bring the caller's masks into the form that proposers give.

    A cell's probability p is the share of its area inside the photo that the mask covers (exact area average, no
    antialiasing filter); its logit is log(p / (1 - p)), clamped to +-20. Cells wholly in the padding have -20.

    Args:
        masks: (N, H, W) bool, 0/1 or uint8 (non-zero = mask), a sequence of (H, W), or a label map (H, W) of integers
            (one mask for each id above 0). Arrays or tensors.
        photo_shape: (H, W) of the photo.
        input_shape: (H', W') of the photo after resizing.
        padded_shape: (H'', W'') of the network input, H'' >= H', W'' >= W'.
        stride: pixels of the network input that a cell is wide.

    Returns:
        Proposals without slots: ``logits`` (N, ceil(H''/stride), ceil(W''/stride)) float32 on the CPU, ``exact`` the
        masks themselves.

    Raises:
        ProposalError: masks of another size than the photo, or of a form that is none of the above.
    """
    exact = np.require(as_masks(masks, photo_shape), requirements=["C", "W"])  # what torch can share
    rows = _cell_shares(photo_shape[0], input_shape[0], padded_shape[0], stride)
    columns = _cell_shares(photo_shape[1], input_shape[1], padded_shape[1], stride).T.tocsr()
    logits = np.empty((len(exact), rows.shape[0], columns.shape[1]), np.float32)
    for mask, cells in zip(exact, logits, strict=True):  # one at a time: a float copy of all would be N photos
        cells[:] = _logit((rows @ mask.astype(np.float32)) @ columns)
    return Proposals(torch.from_numpy(logits), exact=torch.from_numpy(exact))


def _cell_shares(photo: int, resized: int, padded: int, stride: int) -> sparse.csr_array:
    """How much of each cell each photo pixel makes up, along one side.

    Returns:
        (cells, photo) float32, rows sum to 1; rows of cells in the padding are 0.
    """
    edges = np.minimum(np.arange(-(-padded // stride) + 1) * stride, resized) * (photo / resized)
    starts, ends = edges[:-1], edges[1:]
    rows, columns, shares = [], [], []
    for cell, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end <= start:
            break
        pixels = np.arange(int(start), min(photo, int(np.ceil(end))))
        overlap = np.minimum(pixels + 1, end) - np.maximum(pixels, start)
        rows.append(np.full(len(pixels), cell))
        columns.append(pixels)
        shares.append(overlap / overlap.sum())
    values = np.concatenate(shares).astype(np.float32)
    place = (np.concatenate(rows), np.concatenate(columns))
    return sparse.coo_array((values, place), shape=(len(starts), photo)).tocsr()


def _logit(share: np.ndarray) -> np.ndarray:
    share = share.round(6).clip(0.0, 1.0)  # a cell of whole pixels is whole, whatever the sum of its shares rounds to
    with np.errstate(divide="ignore"):
        return np.clip(np.log(share) - np.log1p(-share), -LOGIT_LIMIT, LOGIT_LIMIT)


def as_masks(masks: Masks, photo_shape: tuple[int, int] | None = None) -> np.ndarray:
    """Whatever form of masks as one array.

    Args:
        masks: see ``given_proposals``.
        photo_shape: (H, W) that they must have; None takes any.

    Returns:
        (N, H, W) bool.

    Raises:
        ProposalError: another size, another form, or values that are neither masks nor labels.
    """
    if isinstance(masks, Tensor):
        masks = masks.detach().cpu().numpy()
    elif not isinstance(masks, np.ndarray):
        masks = _stack(masks, photo_shape)
    if masks.ndim not in (2, 3):
        raise ProposalError(f"masks have shape {masks.shape}; give (N, H, W), a list of (H, W) or a label map (H, W)")
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
    """``numpy.stack`` of bool planes made one at a time: a hundred of a large photo are 1.7 GB, and not twice."""
    stacked = np.empty((count, *shape), bool)
    for place, plane in zip(stacked, planes, strict=True):
        place[:] = plane
    return stacked


def _stack(masks: Sequence[Any], photo_shape: tuple[int, int] | None) -> np.ndarray:
    if isinstance(masks, str | Path):
        raise ProposalError(f"masks are a path, {masks}: read them first, deop.proposals.given.read_masks({masks!r})")
    if len(masks) == 0:
        return np.zeros((0, *(photo_shape or (0, 0))), bool)
    planes = [np.asarray(m.detach().cpu() if isinstance(m, Tensor) else m) for m in masks]
    for plane in planes:
        if plane.ndim != 2:
            raise ProposalError(f"a mask in the list has shape {plane.shape}; each must be (H, W)")
        if plane.shape != tuple(photo_shape or planes[0].shape):
            raise _wrong_size(plane.shape, photo_shape or planes[0].shape)
        _check_values(plane)
    return _fill((plane != 0 for plane in planes), len(planes), planes[0].shape)


def _check_values(masks: np.ndarray) -> None:
    if masks.dtype == bool or masks.size == 0:
        return
    if masks.dtype.kind not in "uif":
        raise ProposalError(f"masks hold {masks.dtype}; give bool, integers or 0/1 floats")
    if masks.dtype.kind == "f" and not all(((row == 0) | (row == 1)).all() for row in masks):
        raise ProposalError("float masks must hold 0 and 1 only; threshold them first, for instance masks > 0.5")
    if masks.min() < 0:
        raise ProposalError("masks hold negative ids; ids count from 1 and 0 is no mask (add 1 to a label map with -1)")


def _wrong_size(size: tuple[int, ...], expected: tuple[int, ...]) -> ProposalError:
    return ProposalError(
        f"masks are {size[0]} x {size[1]} (height x width), the photo is {expected[0]} x {expected[1]}; "
        "give masks at the photo's own size"
    )


def read_masks(path: str | Path) -> np.ndarray:
    """Read masks from disk.

    Args:
        path: a PNG whose 8- or 16-bit pixels are ids (0 = none), a ``.npy`` or ``.npz`` with (N, H, W) masks or a
            label map (H, W), or a folder of PNGs, one mask each (non-zero = mask), taken in the order of their names.

    Returns:
        (N, H, W) bool.

    Raises:
        ProposalError: nothing there, not readable, or of another form.
    """
    path = Path(path)
    if not path.exists():
        raise ProposalError(f"no masks at {path}")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png")
        if not files:
            raise ProposalError(f"no masks in {path}: expected PNG files, one mask each")
        shape = _read_plane(files[0]).shape
        return _fill((_read_one(file, files[0], shape) for file in files), len(files), shape)
    masks = _read_array(path) if path.suffix.lower() in (".npy", ".npz") else _read_plane(path)
    try:
        return as_masks(masks)
    except ProposalError as error:
        raise ProposalError(f"{path}: {error}") from error


def _read_one(file: Path, first: Path, shape: tuple[int, ...]) -> np.ndarray:
    plane = _read_plane(file)
    if plane.shape != shape:
        raise ProposalError(f"{file} is {plane.shape}, but {first.name} is {shape} (height, width)")
    return plane != 0


def _read_plane(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
                raise ProposalError(
                    f"{path} is a {image.mode} picture; masks need one channel of 8 or 16 bits with an id a pixel"
                )
            return np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ProposalError):
            raise
        raise ProposalError(f"cannot read masks from {path}: {error}") from error


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if "masks" not in names and len(names) != 1:
                raise ProposalError(f"{path} holds {', '.join(names) or 'nothing'}; name the array 'masks'")
            return loaded["masks" if "masks" in names else names[0]]
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, ProposalError):
            raise
        raise ProposalError(f"cannot read masks from {path}: {error}") from error
