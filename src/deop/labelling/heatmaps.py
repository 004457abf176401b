"""Heatmaps of names: the score of a name at each pixel, and the patches that the model embedded for it."""

from collections.abc import Sequence

import numpy as np

from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.labelling.resampling import resize_weights
from deop.labelling.windows import mask_strips
from deop.text.calibration import Calibration


def score_heatmaps(
    probabilities: np.ndarray,
    masks: PhotoMasks,
    canvas: Canvas,
    class_ids: Sequence[int],
    calibration: Calibration | None = None,
) -> np.ndarray:
    """The score of some names at each pixel: S_k / max(1, sum_n M_n), with S_k = sum_n P_n(k) M_n (docs/method.md §6).

    In semantic mode, a pixel gets the name with the highest score, if that reaches its threshold. The photo is
    processed in windows, so that beside the result neither names x pixels nor masks x pixels are in memory.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, "none of these".
        masks: N masks.
        canvas: position of the photo in the masks.
        class_ids: n indices of names.
        calibration: calibration of the scores; None: raw scores.

    Returns:
        Array (n, H, W) float32 in [0, 1].
    """
    heatmaps = np.zeros((len(class_ids), *canvas.photo), np.float32)
    if not len(masks) or not len(class_ids):
        return heatmaps
    votes = probabilities[:, list(class_ids)].astype(np.float32).T
    votes = np.concatenate([votes, np.ones_like(votes[:1])])  # the last row gives the sum of the masks
    for strip in mask_strips(masks, canvas):
        for window in strip.windows:
            varying, constant = window.varying, window.low.copy()
            constant[varying] = 0
            values = window.at_input(varying)
            maps = np.tensordot(votes[:, varying], values, 1)  # also without any that varies
            maps = window.enlarge(maps) + (votes @ constant)[:, None, None]
            heatmaps[:, window.rows, window.columns] = maps[:-1] / np.maximum(maps[-1], 1)
        part = heatmaps[:, strip.rows]
        np.clip(part, 0, 1, out=part)
        if calibration is not None:
            part[:] = calibration.scores(part)
    return heatmaps


def anchor_heatmaps(
    weights: np.ndarray | None, probabilities: np.ndarray, canvas: Canvas, class_ids: Sequence[int], patch: int
) -> np.ndarray:
    """Where the model looked: the weights of the patches in the embeddings of the regions that have a name.

    The weights of a region are its anchor heatmap (docs/method.md §5), times the probability of the name. With pooled
    anchors they are the region's coverage of the patches.

    Args:
        weights: (N, gh, gw) float, mean over the heads of the weights of the patches in each embedding; None for crops.
        probabilities: (N, K + 1), as in ``score_heatmaps``. A region has the name with the highest probability.
        canvas: position of the photo in the masks.
        class_ids: n indices of names.
        patch: side of a patch in pixels of the network input.

    Returns:
        Array (n, H, W) float32 in [0, 1], of which each heatmap has the maximum 1; 0 for names that no region has.

    Raises:
        SettingError: the photo was encoded by the two-stream classifier, which encodes crops.
    """
    if weights is None:
        raise SettingError('classifier="two-stream" encodes crops and has no anchor heatmaps: use "one-pass"')
    best = probabilities.argmax(1)
    chosen = np.stack([probabilities[:, k] * (best == k) for k in class_ids]).astype(np.float32)  # (n, N)
    maps = (chosen @ weights.reshape(len(weights), -1)).reshape(-1, *weights.shape[1:])
    maps /= np.maximum(maps.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    sides = zip(weights.shape[1:], canvas.resized, canvas.photo, strict=True)
    rows, columns = (_patches_to_photo(*side, patch) for side in sides)
    return np.clip(rows @ maps @ columns.T, 0, 1)


def _patches_to_photo(patches: int, resized: int, photo: int, patch: int) -> np.ndarray:
    """The weights (photo, patches) that resize one side of the patch grid to the network input, and that to a photo."""
    cells, inner = resize_weights(patches, patches * patch, 0, resized)
    whole = np.zeros((resized, patches), np.float32)
    whole[:, cells] = inner
    pixels, outer = resize_weights(resized, photo, 0, photo)
    return outer @ whole[pixels]
