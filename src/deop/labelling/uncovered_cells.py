"""Pixels in no mask, named by their own cell of the patch grid (``anchors="patch"``, docs/method.md §5); NumPy only."""

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks


def add_uncovered_cells(
    scores: np.ndarray, masks: PhotoMasks, canvas: Canvas, cells: np.ndarray, patch: int, *, none_competes: bool
) -> tuple[np.ndarray, PhotoMasks]:
    """Add the pixels in no mask as further masks, one for each name that wins some of them.

    A pixel is in no mask if no mask has a probability above 0.5 there. Logits are interpolated bilinearly between the
    centres of the cells, and the name with the largest one wins. As inside masks, each cell gives its whole vote to one
    name, so that the score of the name is 1.

    Args:
        scores: (N, K + 1) float, scores of the names for each mask and, last, of "none of these".
        masks: N masks; N may be 0.
        canvas: position of the photo in the masks.
        cells: (gh, gw, K + 1) float, logits of each cell; -inf for names that do not take part.
        patch: side of a cell in pixels of the network input.
        none_competes: whether "none of these" takes part; if not, its column has no effect.

    Returns:
        Scores (N + n, K + 1) float32, and N + n masks.
    """
    best = _names(cells if none_competes else cells[..., :-1], masks.logits.shape[1:], canvas, patch)
    exact = masks.exact
    if exact is None:
        free = masks.logits.max(0, initial=-np.inf) <= 0
    else:
        free = ~exact.any(0)
        # The cell of the masks at the centre of each pixel of the photo.
        rows, columns = (
            ((np.arange(photo) + 0.5) * (resized / photo) * (count / padded)).astype(int).clip(0, count - 1)
            for photo, resized, padded, count in zip(
                canvas.photo, canvas.resized, canvas.padded, best.shape, strict=True
            )
        )
        best = best[rows[:, None], columns]
    found = np.unique(best[free])
    added = (best == found[:, None, None]) & free
    names = np.eye(scores.shape[1], dtype=np.float32)[found]
    if exact is None:
        certain = np.where(added, np.float32(20), np.float32(-20))
        all_masks = PhotoMasks(np.concatenate([masks.logits, certain]))
    else:
        unused = np.zeros((len(found), *masks.logits.shape[1:]), np.float32)  # of exact masks, logits are not read
        all_masks = PhotoMasks(np.concatenate([masks.logits, unused]), np.concatenate([exact, added]))
    return np.concatenate([scores.astype(np.float32, copy=False), names]), all_masks


def _names(cells: np.ndarray, shape: tuple[int, ...], canvas: Canvas, patch: int) -> np.ndarray:
    """The best name at each cell of masks of a shape (h, w), (h, w) int64; only names that win a cell are compared."""
    winners = np.unique(cells.argmax(-1))
    maps = np.moveaxis(cells[..., winners], -1, 0).astype(np.float32)
    maps = np.maximum(maps, np.finfo(np.float32).min / 4)  # -inf times 0 would not be a number
    down, across = (
        _weights(count, padded / count / patch, length)
        for count, padded, length in zip(shape, canvas.padded, maps.shape[1:], strict=True)
    )
    result: np.ndarray = winners[(down @ maps @ across.T).argmax(0)]
    return result


def _weights(count: int, scale: float, length: int) -> np.ndarray:
    """Weights (count, length) float32 of a bilinear resize; ``scale``: source cells for each target cell."""
    position = ((np.arange(count) + 0.5) * scale - 0.5).clip(0, length - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(length))).astype(np.float32)
