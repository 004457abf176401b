"""Learning examples: from photos with marked regions to a bank."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.arguments import check_arguments
from deop.arrays import to_float32
from deop.bank.bank import NOT, UNMARKED, Bank, clean_name
from deop.bank.marks import masks_of, needs_proposals
from deop.bank.space import Space, encoding_of, probe_of
from deop.errors import DataError, ProposalError, SettingError
from deop.images.masks import cell_logits
from deop.images.reading import Photo, read_photo
from deop.labelling.windows import sigmoid

if TYPE_CHECKING:
    from deop.surface import ModelSurface

PURITY = 0.6
"""Share of a proposal that must lie in a marked mask, so that it is an example of the mask's name."""
FOREIGN = 0.05
"""Share of a proposal that may lie in marked masks, so that it counts as unmarked."""
SMALLEST = 0.002
"""Share of the photo that a proposal covers at least, so that it is an example."""
PROPOSALS = 12
"""Proposals of a photo that are examples of one name, the largest ones; unmarked ones count as one name."""
REGIONS_PER_NAME = 1000
"""Examples of a name that ``learn`` keeps, of as many photos as possible."""

NOTHING_MARKED = "no photo has a marked region: check the masks"
"""Message of the error if none of the marks has a pixel."""


@dataclass(frozen=True)
class MarkedPhoto:
    """A photo with marked regions.

    Attributes:
        photo: in any form that ``read_photo`` takes.
        marks: n masks, boxes or clicks, as in ``learn``; or a function that returns them.
        names: n names.
    """

    photo: Photo
    marks: Any
    names: Sequence[str]


@check_arguments
def learn(
    model: "ModelSurface",
    photos: Photo | Sequence[Photo],
    masks: Any,
    names: Sequence[Any] | str,
    *,
    limit: int = REGIONS_PER_NAME,
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Learn names from marked regions: their embeddings, and those of the proposals inside them (docs/method.md §14).

    Args:
        model: the model; with masks of its own if boxes or clicks are given.
        photos: a photo, or a list of photos, as in ``segment``.
        masks: of each photo its marked regions: masks in any form that ``segment`` takes, at the size of the photo, or
            a list of masks (H, W), ``Box`` and ``Click``.
        names: of each photo a name for each of its regions; "cup|mug" has synonyms, "-cup" marks a region that is not
            a cup. For a label map (H, W) the names are those of its ids in ascending order.
        limit: regions to keep of each name.
        note: a text that is stored with the bank, such as the licence of the photos.
        progress: called with the number of finished photos and of all photos.

    Returns:
        The bank; ``Bank.save`` stores it.

    Raises:
        ImageError, ProposalError, VocabularyError, SettingError: naming the input and the remedy.
    """
    if not isinstance(photos, (list, tuple)):
        photos, masks, names = [photos], [masks], [[names] if isinstance(names, str) else names]
    listed: list[Any] = list(photos)
    if (
        isinstance(masks, np.ndarray)
        or not isinstance(masks, Collection)
        or len(masks) != len(listed)
        or not isinstance(names, Collection)
        or isinstance(names, str)
        or len(names) != len(listed)
    ):
        raise SettingError(
            f"{len(listed)} photos: give a list with the masks, and a list with the names, of each photo"
        )
    marked = []
    for photo, marks, texts in zip(listed, masks, names, strict=True):
        if callable(marks) or not isinstance(texts, Iterable):
            raise SettingError("give the masks of each photo, and a list with a name for each of them")
        marked.append(MarkedPhoto(photo, marks, [texts] if isinstance(texts, str) else list(texts)))
    return learn_photos(model, marked, len(marked), limit=limit, note=note, progress=progress)


def learn_photos(
    model: "ModelSurface",
    photos: Iterable[MarkedPhoto],
    count: int,
    *,
    limit: int = REGIONS_PER_NAME,
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """``learn`` for photos that are read one after the other.

    Args:
        model: as in ``learn``.
        photos: the photos.
        count: how many there are.
        limit: as in ``learn``.
        note: as in ``learn``.
        progress: as in ``learn``.

    Raises:
        DataError: no photo has a marked region.
    """
    parts: list[Regions] = []
    for done, marked in enumerate(photos):
        parts.append(_regions_of(model, marked, done, count))
        if progress:
            progress(done + 1, count)
    return bank_of_regions(model, parts, NOTHING_MARKED, note).limited(limit)


def learn_encoded(
    model: "ModelSurface",
    encoded: Any,
    marks: Any,
    names: Sequence[str],
    *,
    limit: int = REGIONS_PER_NAME,
    note: str = "",
    **encoding: Any,
) -> Bank:
    """``learn`` for a photo that is encoded already, with the masks of the model.

    Args:
        model: the model that encoded it.
        encoded: the photo, from ``encode``.
        marks: n masks, boxes or clicks, as in ``learn``.
        names: n names.
        limit: as in ``learn``.
        note: as in ``learn``.
        encoding: the options that the photo was encoded with, as for ``encode``.

    Raises:
        ProposalError, VocabularyError, SettingError: as ``learn``.
        DataError: no pixel is marked.
    """
    part = _regions_in(model, encoded.photo, encoded, marks, [clean_name(name) for name in names], "photo", encoding)
    return bank_of_regions(model, [part], NOTHING_MARKED, note).limited(limit)


def digest_of(photo: np.ndarray) -> str:
    """The digest by which a bank knows a photo, (H, W, 3) uint8."""
    return hashlib.sha256(repr(photo.shape).encode() + np.ascontiguousarray(photo).data).hexdigest()[:32]


def bank_of_regions(model: "ModelSurface", parts: Sequence["Regions"], if_none: str, note: str = "") -> Bank:
    """The bank of the examples of several photos.

    Args:
        model: what encoded them.
        parts: the examples of each photo.
        if_none: message of the error if there is no example.
        note: as in ``learn``.

    Raises:
        DataError: no part has an example with a name.
        SettingError: the photos were encoded with different options.
    """
    parts = [part for part in parts if len(part.regions)]
    if not any(name != UNMARKED for part in parts for name in part.names):
        raise DataError(if_none)
    encoding = parts[0].encoding
    space = Space(probe_of(model), model.precision, encoding, model.card.name, model.card.license, note)
    for part in parts:
        space.check_encoding(part.encoding, "the photos cannot be learned together")
    names = sorted({name for part in parts for name in part.names})
    index = {name: place for place, name in enumerate(names)}
    digests = sorted({part.photo for part in parts})
    return Bank(
        space,
        tuple(names),
        tuple(digests),
        np.concatenate([part.regions for part in parts]),
        np.array([index[name] for part in parts for name in part.names], np.int32),
        np.array([digests.index(part.photo) for part in parts for _ in part.names], np.int32),
        np.array([flag for part in parts for flag in part.marked], bool),
        np.array([share for part in parts for share in part.area], np.float32),
    )


@dataclass
class Regions:
    """The examples of one photo.

    Attributes:
        photo: its digest.
        encoding: the options that its embeddings depend on.
        regions: (R, C) float16.
        names: R names.
        marked: for each region whether it is a marked mask itself.
        area: the share of the photo that each covers.
    """

    photo: str
    encoding: dict[str, Any]
    regions: np.ndarray
    names: list[str]
    marked: list[bool]
    area: list[float]


def _regions_of(model: "ModelSurface", marked: MarkedPhoto, number: int, count: int) -> Regions:
    names = [clean_name(name) for name in marked.names]
    array = read_photo(marked.photo)
    marks = marked.marks() if callable(marked.marks) else marked.marks
    if model.needs_masks and needs_proposals(marks):
        raise SettingError("this model has no proposer, so that boxes and clicks mark nothing: give masks")
    own = None if model.needs_masks else model.encode([array])[0]
    where = marked.photo if isinstance(marked.photo, str) else f"photo {number + 1} of {count}"
    return _regions_in(model, array, own, marks, names, where, {})


def _regions_in(
    model: "ModelSurface",
    array: np.ndarray,
    own: Any,
    marks: Any,
    names: list[str],
    where: str,
    options: Mapping[str, Any],
) -> Regions:
    """The examples of a photo, which was encoded with the options and the model's own masks, unless it has none."""
    shape = (array.shape[0], array.shape[1])
    masks = masks_of(marks, shape, None if own is None else own.masks, None if own is None else own.canvas)
    if len(masks) != len(names):
        raise ProposalError(f"{where} has {len(masks)} marked regions and {len(names)} names: give a name for each")
    filled = np.asarray(masks.any((1, 2)))
    masks, names = masks[filled], [name for name, some in zip(names, filled, strict=True) if some]
    digest = digest_of(array)
    parts = []
    encoding = {} if own is None else encoding_of(own.settings)
    if len(masks):
        given = model.encode([array], [masks], **options)[0]
        # An anchor decoder that is tied to its proposer embeds given masks in another way: they would not compare.
        if own is None or encoding_of(given.settings) == encoding:
            encoding = encoding_of(given.settings)
            areas = masks.mean((1, 2), dtype=np.float64).tolist()
            parts.append((to_float32(given.regions), names, True, areas))
    if own is not None and len(own.masks):
        parts += _matching(own, masks, names)
    if not parts:
        return Regions(digest, encoding, np.zeros((0, 1), np.float16), [], [], [])
    return Regions(
        digest,
        encoding,
        np.concatenate([rows for rows, *_ in parts]).astype(np.float16),
        [name for _, texts, *_ in parts for name in texts],
        [flag for rows, _, flag, _ in parts for _ in range(len(rows))],
        [share for *_, shares in parts for share in shares],
    )


def _matching(own: Any, masks: np.ndarray, names: list[str]) -> list[tuple[np.ndarray, list[str], bool, list[float]]]:
    """The embeddings of the proposals inside each marked mask, and of those outside all of them."""
    canvas, proposals = own.canvas, own.masks
    probabilities = sigmoid(np.asarray(proposals.logits, np.float32)).reshape(len(proposals), -1)
    stride = canvas.padded[0] // proposals.logits.shape[1]
    whole = np.ones((1, *canvas.photo), bool)
    shares = sigmoid(cell_logits(np.concatenate([masks, whole]), canvas.resized, canvas.padded, stride))
    overlap = probabilities @ shares.reshape(len(shares), -1).T  # (N, n + 1), in cells
    mass, overlap = overlap[:, -1], overlap[:, :-1]
    inside = overlap / np.maximum(mass, 1e-6)[:, None]
    large = mass >= SMALLEST * shares[-1].sum()
    regions = to_float32(own.regions)
    found = []
    chosen = [(inside[:, place] >= PURITY) & large for place in range(len(masks))]
    chosen.append((inside.sum(1) <= FOREIGN) & large)
    for which, name in zip(chosen, [*names, UNMARKED], strict=True):
        index = np.flatnonzero(which)
        index = index[np.argsort(-mass[index], kind="stable")][:PROPOSALS]
        if len(index):
            found.append((regions[index], [name] * len(index), False, (mass[index] / shares[-1].sum()).tolist()))
    return found


def negative(name: str) -> str:
    """The name of a region that is not ``name``."""
    return NOT + clean_name(name).removeprefix(NOT)
