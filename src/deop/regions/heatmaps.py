"""Heatmaps of names: the score of a name at each pixel, and the patches that the model embedded for it."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.proposals.types import Proposals
from deop.regions.encoding import EncodedPhoto
from deop.regions.windows import mask_windows
from deop.text.calibration import Calibration


def score_heatmaps(
    probabilities: Tensor,
    proposals: Proposals,
    canvas: Canvas,
    class_ids: Sequence[int],
    calibration: Calibration | None = None,
) -> np.ndarray:
    """The score of some names at each pixel: S_k / max(1, sum_n M_n), with S_k = sum_n P_n(k) M_n (docs/method.md §6).

    In semantic mode, a pixel gets the name with the highest score, if that reaches its threshold. The photo is
    processed in windows, so that beside the result neither names x pixels nor masks x pixels are in memory.

    Args:
        probabilities: (N, K + 1), softmax over the names and, last, "none of these".
        proposals: N masks.
        canvas: position of the photo in the masks.
        class_ids: n indices of names.
        calibration: calibration of the scores; None: raw scores.

    Returns:
        Array (n, H, W) float32 in [0, 1].
    """
    heatmaps = np.zeros((len(class_ids), *canvas.photo), np.float32)
    if not len(proposals):
        return heatmaps
    votes = probabilities[:, list(class_ids)].float().T.contiguous()  # (n, N)
    for window in mask_windows(proposals, canvas):
        coverage = window.masks.sum(0) + window.constant.sum()
        scores = (votes[:, window.varying] @ window.masks.flatten(1)).unflatten(1, coverage.shape)
        scores = (scores + (votes @ window.constant)[:, None, None]) / coverage.clamp_min(1.0)
        values = scores.clamp(0, 1).cpu().numpy()
        if calibration is not None:
            values = calibration.scores(values)
        heatmaps[:, window.rows, window.columns] = values
    return heatmaps


def anchor_heatmaps(encoded: EncodedPhoto, probabilities: Tensor, class_ids: Sequence[int], patch: int) -> np.ndarray:
    """Where the model looked: the weights of the patches in the embeddings of the regions that have a name.

    The weights of a region are the mean over the heads of its anchor heatmap (docs/method.md §5), times the probability
    of the name. With pooled anchors they are the region's coverage of the patches.

    Args:
        encoded: the photo and its N proposals.
        probabilities: (N, K + 1), as in ``score_heatmaps``. A region has the name with the highest probability.
        class_ids: n indices of names.
        patch: side of a patch in pixels of the network input.

    Returns:
        Array (n, H, W) float32 in [0, 1], of which each heatmap has the maximum 1; 0 for names that no region has.

    Raises:
        SettingError: the photo was encoded by the two-stream classifier, which encodes crops.
    """
    if encoded.heatmaps is None:
        raise SettingError('classifier="two-stream" encodes crops and has no anchor heatmaps: use "one-pass"')
    weights = encoded.heatmaps.float().mean(0)  # (N, gh, gw)
    best = probabilities.argmax(1)
    chosen = torch.stack([probabilities[:, k] * (best == k) for k in class_ids])  # (n, N)
    maps = (chosen.float() @ weights.flatten(1)).unflatten(1, weights.shape[1:])
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    rows, columns = encoded.canvas.resized
    pixels = F.interpolate(maps[None], scale_factor=patch, mode="bilinear")[..., :rows, :columns]
    return F.interpolate(pixels, encoded.canvas.photo, mode="bilinear")[0].clamp(0, 1).cpu().numpy()
