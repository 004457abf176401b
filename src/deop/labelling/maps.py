"""Maps of a photo, and the things in a map of names; NumPy only."""

from typing import NamedTuple

import numpy as np

from deop.images.connected_regions import connected_regions
from deop.labelling.same_thing import MaskCells, join_pieces
from deop.labelling.small_regions import absorb_small_regions


class SemanticMap(NamedTuple):
    """One name per pixel.

    Attributes:
        labels: (H, W) int32, index of the name, or -1 for none.
        confidence: (H, W) float32 in [0, 1], share of the masks over the pixel that vote for this name.
    """

    labels: np.ndarray
    confidence: np.ndarray


class Piece(NamedTuple):
    """Name and score of a thing, or of all pixels of one kind of stuff.

    Attributes:
        class_id: index of the name.
        score: in [0, 1].
        isthing: whether the name is a countable thing.
    """

    class_id: int
    score: float
    isthing: bool


class PanopticMap(NamedTuple):
    """One segment per pixel.

    Attributes:
        segments: (H, W) int32, index into ``pieces``, or -1 for none.
        pieces: names and scores of the segments.
    """

    segments: np.ndarray
    pieces: list[Piece]


def divide_things(
    semantic: SemanticMap,
    things: np.ndarray,
    *,
    smallest_thing: float = 0.0,
    stuff: np.ndarray | None = None,
    cells: MaskCells | None = None,
) -> PanopticMap:
    """Divide the pixels of each thing into connected pieces; all pixels of a kind of stuff form one segment.

    Things of one name that touch are one piece, and so are pieces of one name in one mask. The score of a piece
    is the mean confidence of its pixels.

    Args:
        semantic: names of the pixels.
        things: (K,) bool, True for names of countable things.
        smallest_thing: share of the photo, in [0, 1); smaller pieces of things get the label of their surroundings. If
            the whole photo consists of such pieces, they are kept.
        stuff: (K,) bool, the kinds of stuff that are segments; pixels of the others are -1. None: all kinds.
        cells: which mask covers which part of the photo (``same_thing.mask_cells``). None: only connected pieces are
            one thing.

    Returns:
        The segments, in the order of their first pixels.

    >>> labels = np.array([[0, 1, 0], [0, 1, 1]], np.int32)
    >>> confidence = np.full((2, 3), 0.5, np.float32)
    >>> divide_things(SemanticMap(labels, confidence), np.array([True, False])).segments
    array([[0, 1, 2],
           [0, 1, 1]], dtype=int32)
    """
    labels = semantic.labels
    min_area = np.append(np.where(things, smallest_thing * labels.size, 0.0), 0.0)
    labels = absorb_small_regions(labels, min_area)
    regions = connected_regions(labels)
    separate = np.append(things, False)[regions.labels]  # the last entry is for -1
    named = separate | np.append(~things if stuff is None else ~things & stuff, False)[regions.labels]
    # Regions of one kind of stuff have one key, and each thing has its own.
    root = np.arange(len(separate)) if cells is None else join_pieces(regions, cells)
    keys = np.where(separate, root + len(things), regions.labels)
    _, first, segment = np.unique(keys[named], return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.full(len(named), -1, np.int32)
    number[named] = np.argsort(order)[segment]
    total = np.bincount(number[named], regions.sum(semantic.confidence)[named], len(first))
    area = np.bincount(number[named], regions.areas[named], len(first))
    classes = regions.labels[named][first[order]].tolist()
    pieces = [
        Piece(class_id, min(1.0, score), bool(things[class_id]))
        for class_id, score in zip(classes, (total / np.maximum(area, 1)).tolist(), strict=True)
    ]
    return PanopticMap(regions.paint(number), pieces)


def drop_weak_things(panoptic: PanopticMap, least: float) -> PanopticMap:
    """The segments without the things whose score is below ``least``, in [0, 1]; their pixels are -1."""
    return _keep(panoptic, [not piece.isthing or piece.score >= least for piece in panoptic.pieces])


def only_things(panoptic: PanopticMap) -> PanopticMap:
    """The things alone: pixels of stuff are -1."""
    return _keep(panoptic, [piece.isthing for piece in panoptic.pieces])


def _keep(panoptic: PanopticMap, flags: list[bool]) -> PanopticMap:
    """Some of the segments; the pixels of the others are -1."""
    kept = [index for index, flag in enumerate(flags) if flag]
    number = np.full(len(flags) + 1, -1, np.int32)  # the last entry is for -1
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return PanopticMap(number[panoptic.segments], [panoptic.pieces[index] for index in kept])
