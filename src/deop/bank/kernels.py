"""How similar regions are to groups of examples: mean kernels, and what they say about names."""

import numpy as np

SHARPNESS = 20.0
"""The kernel of two centred regions is exp(SHARPNESS * (cosine - 1)); docs/method.md §14 says how it was chosen."""

_BLOCK = 1 << 24  # kernels in memory, 64 MiB
_SMALLEST = np.float32(1e-37)


def centre_of(regions: np.ndarray, group: np.ndarray) -> np.ndarray:
    """What the embeddings of a bank have in common: the mean over groups of their means, shrunk towards 0.

    Embeddings of one encoder share a large part that says nothing about names. With few groups this part is not known
    well, so that the sum of the means is divided by one more than the number of groups.

    Args:
        regions: (R, C) float32, L2-normalised.
        group: (R,) int, the group of each region, such as one name in one photo; regions of a group are much alike.

    Returns:
        (C,) float32.
    """
    _, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
    shares = 1 / counts[inverse].astype(np.float64)
    return ((shares @ regions) / (len(counts) + 1)).astype(np.float32)


def centred(regions: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Embeddings (N, C) without what they have in common (C,), L2-normalised float32."""
    result = regions.astype(np.float32) - centre
    result /= np.maximum(np.linalg.norm(result, axis=-1, keepdims=True), 1e-6)
    return result


def mean_kernels(
    regions: np.ndarray,
    examples: np.ndarray,
    starts: np.ndarray,
    excluded: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The similarity of regions to groups of examples.

    Args:
        regions: (N, C) float32, L2-normalised.
        examples: (R, C) float32, L2-normalised, one group after the other.
        starts: (G,) int, first example of each group.
        excluded: the photos of the N regions and of the R examples; pairs of one photo do not count. None: all count.

    Returns:
        (N, G) float32, the logarithm of the mean kernel, -inf for a group of which no example counts; and (N, G)
        float32, the greatest cosine.
    """
    count, groups = len(regions), len(starts)
    logs, nearest = np.empty((count, groups), np.float32), np.empty((count, groups), np.float32)
    sizes = np.diff(np.append(starts, len(examples))).astype(np.float32)
    step = max(1, _BLOCK // max(1, len(examples)))
    for first in range(0, count, step):
        part = slice(first, first + step)
        cosines = regions[part] @ examples.T
        if excluded is not None:
            other = excluded[0][part, None] != excluded[1][None]
            cosines = np.where(other, cosines, -np.inf)
            sizes = np.add.reduceat(other, starts, axis=1, dtype=np.float32)
        nearest[part] = np.maximum.reduceat(cosines, starts, axis=1)
        cosines -= 1
        cosines *= SHARPNESS
        sums = np.add.reduceat(np.exp(cosines, out=cosines), starts, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs[part] = np.where(sizes > 0, np.log(np.maximum(sums, _SMALLEST) / sizes), -np.inf)
    return logs, nearest


def evidence_of(logs: np.ndarray) -> np.ndarray:
    """The evidence of examples for names: the log of their mean kernel, relative to the mean over the columns.

    Args:
        logs: (N, k) float, log kernels; -inf for columns without examples.

    Returns:
        (N, k) float, at most log k; 0 for columns without examples.
    """
    present = np.isfinite(logs)
    reference = log_sum(logs) - np.log(np.maximum(present.sum(1), 1))
    with np.errstate(invalid="ignore"):
        return np.where(present, logs - reference[:, None], 0)


def log_sum(logits: np.ndarray) -> np.ndarray:
    """log of the sum of exp over the last axis; -inf if all are -inf."""
    top = logits.max(-1, initial=-np.inf)
    safe = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(logits - safe[..., None]).sum(-1))
