"""Connected regions of label maps, from runs of equal pixels; NumPy only.

A run is a maximal part of a row whose pixels have one label. A label map has far fewer runs than pixels, so only the
search for the starts of the runs visits every pixel.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regions:
    """The connected regions of a label map, numbered by their first pixel in reading order.

    Attributes:
        shape: (H, W) of the map.
        starts: (R,) flat index of the first pixel of each run, ascending.
        lengths: (R,) pixels of each run.
        region: (R,) int32, the region of each run.
        labels: (n,) label of each region, in the dtype of the map.
        areas: (n,) int64, pixels of each region.
    """

    shape: tuple[int, int]
    starts: np.ndarray
    lengths: np.ndarray
    region: np.ndarray
    labels: np.ndarray
    areas: np.ndarray

    def paint(self, values: np.ndarray) -> np.ndarray:
        """A map (H, W) with one value for each region, from values (n,)."""
        return np.repeat(values[self.region], self.lengths).reshape(self.shape)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of a map (H, W) over each region, (n,) float64."""
        sums = np.add.reduceat(np.ascontiguousarray(values).ravel(), self.starts, dtype=np.float64)
        return np.bincount(self.region, sums, len(self.labels))

    def borders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of runs of different regions that touch at their sides.

        Returns:
            Both regions of each pair, (P,) int32; and the number of sides of pixels that they share, (P,) integers. Two
            regions can form several pairs.
        """
        width, ends = self.shape[1], self.starts + self.lengths
        upper, lower = _stacked(self.starts, self.lengths, width)
        shared = np.minimum(ends[lower] - width, ends[upper]) - np.maximum(
            self.starts[lower] - width, self.starts[upper]
        )
        left = np.flatnonzero(self.starts[1:] % width)  # the runs that another one follows in the same row
        first = np.concatenate([self.region[upper], self.region[left]])
        second = np.concatenate([self.region[lower], self.region[left + 1]])
        sides = np.concatenate([shared, np.ones(len(left), shared.dtype)])
        different = first != second
        return first[different], second[different], sides[different]


def connected_regions(labels: np.ndarray, *, diagonal: bool = False) -> Regions:
    """Find the connected regions of a label map.

    Args:
        labels: (H, W) of any dtype; every value is a label, -1 like any other.
        diagonal: whether pixels of one label that touch only at a corner are connected. If not, pixels are connected at
            their sides only.

    >>> found = connected_regions(np.array([[1, 1, 0], [0, 0, 1]]))
    >>> found.paint(np.arange(4))
    array([[0, 0, 1],
           [2, 2, 3]])
    """
    height, width = labels.shape
    flat = np.ascontiguousarray(labels).ravel()
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    if width:
        begins[::width] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    run_labels = flat[starts]
    upper, lower = _stacked(starts, lengths, width, diagonal=diagonal)
    same = run_labels[upper] == run_labels[lower]
    root = _join(len(starts), upper[same], lower[same])
    first = root == np.arange(len(starts))
    region = (np.cumsum(first, dtype=np.int32) - 1)[root]
    count = int(first.sum())
    areas = np.bincount(region, lengths, count).astype(np.int64)
    return Regions((height, width), starts, lengths, region, run_labels[first], areas)


def _stacked(
    starts: np.ndarray, lengths: np.ndarray, width: int, *, diagonal: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs, of any labels, that touch between two rows: the upper and the lower run of each, ascending."""
    first = int(np.searchsorted(starts, width))  # the first run of the second row
    if first == len(starts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ends = starts + lengths
    right = ends[first:] - width - 1  # the pixels above the last pixel of each run
    high = _runs_at(right, starts, ends)
    # The pixel above the start of a run follows the pixel above the end of the run before it.
    low = np.concatenate([[0], (high + (ends[high] == right + 1))[:-1]])[: len(high)]
    if diagonal:
        left = starts[first:] - width
        low, high = (
            low - ((left % width > 0) & (starts[low] == left)),
            high + ((right % width < width - 1) & (ends[high] == right + 1)),
        )
    counts = high - low + 1
    lower = np.repeat(np.arange(first, len(starts)), counts)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts - low, counts)
    return upper, lower


def _runs_at(pixels: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The run that contains each of some pixels, which are given by their flat indices."""
    if 16 * len(starts) < ends[-1]:
        return np.searchsorted(starts, pixels, "right") - 1
    begins = np.zeros(ends[-1], np.int8)  # with many runs, counting their starts is faster than a search
    begins[starts] = 1
    return np.cumsum(begins, dtype=np.int32)[pixels].astype(np.int64) - 1


def _join(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest node of the component of each node of a graph.

    Every node with an edge to a smaller one is attached to the smallest of these. Then the trees are contracted to
    their roots, of which few have edges to other trees, and the same is done with these.

    Args:
        count: number of nodes.
        first: (E,) integers, one end of each edge.
        second: (E,) integers, the other end.

    Returns:
        (count,) int64.
    """
    root = np.arange(count)
    np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
    while not np.array_equal(shorter := root[root], root):
        root = shorter
    first, second = root[first], root[second]
    between = first != second
    if between.any():
        nodes, ends = np.unique(np.stack([first[between], second[between]]), return_inverse=True)
        root[nodes] = nodes[_join(len(nodes), *ends.reshape(2, -1))]
        root = root[root]
    return root
