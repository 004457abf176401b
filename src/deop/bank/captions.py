"""Examples from captions: photos with a text that says what they show, without any mark."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.arrays import to_float32
from deop.bank.bank import Bank
from deop.bank.learning import PROPOSALS, REGIONS_PER_NAME, SMALLEST, Regions, bank_of_regions, digest_of
from deop.bank.space import encoding_of
from deop.errors import DataError, SettingError
from deop.files import existing_path, json_of
from deop.images.reading import Photo, read_photo
from deop.labelling.windows import sigmoid
from deop.text.known_classes import forms
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deop.surface import ModelSurface

SUFFIXES = (".jsonl", ".csv", ".tsv")
"""Endings of files with captions."""
UNMENTIONED = 4.0
"""How much the logits of names that a caption does not have are lowered: captions leave out much of what is there."""
LEAST = 0.5
"""Least probability of a proposal's name, so that it is an example."""


@dataclass(frozen=True)
class Captioned:
    """A photo with its caption.

    Attributes:
        photo: in any form that ``read_photo`` takes.
        caption: a text in words, such as "two cows on the grass".
    """

    photo: Photo
    caption: str


def learn_captions(
    model: "ModelSurface",
    photos: Iterable[Captioned],
    names: Vocabulary | Sequence[str] | str,
    *,
    limit: int = REGIONS_PER_NAME,
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Bank:
    """Learn names from photos with captions: the proposals that words score best for them (docs/method.md §14).

    A name counts as mentioned if the caption has it, or a synonym, in singular or plural.

    Args:
        model: the model; with masks of its own.
        photos: photos with captions.
        names: the names to look for, as in ``segment``: also those that are often left out of captions.
        limit: regions to keep of each name.
        note: a text that is stored with the bank.
        progress: called with the number of finished photos and of all photos.

    Raises:
        SettingError: a model without a proposer.
        DataError: no caption has one of the names, or no proposal fits any.
        VocabularyError: invalid names.
    """
    vocabulary, listed = model.vocabulary(names), list(photos)
    if model.needs_masks:
        raise SettingError("this model has no proposer, so that captions mark nothing: learn from masks")
    mentioned = [names_in(one.caption, vocabulary) for one in listed]
    if not any(mentioned):
        shown = ", ".join(vocabulary.names[:5])
        raise DataError(f"none of {len(listed)} captions has one of the names ({shown}): check the names (--classes)")
    parts = []
    for done, (one, found) in enumerate(zip(listed, mentioned, strict=True)):
        if found:
            parts.append(_regions_of(model, read_photo(one.photo), vocabulary, found))
        if progress:
            progress(done + 1, len(listed))
    bank = bank_of_regions(model, parts, "no proposal fits a name of its caption: use more photos, or masks", note)
    return bank.limited(limit)


def names_in(caption: str, vocabulary: Vocabulary) -> list[int]:
    """Indices of the names that a caption has, by any synonym, as whole words, in singular or plural.

    >>> names_in("Two cows, grazing", Vocabulary.parse("cow, grass, cattle|cows"))
    [0, 2]
    """
    words = re.findall(r"[\w']+", caption)
    texts = [
        " ".join(words[first:last]) for last in range(1, len(words) + 1) for first in range(max(0, last - 6), last)
    ]
    found = set().union(*(forms(text) for text in texts)) if texts else set()
    return [k for k, synonyms in enumerate(vocabulary.synonyms) if any(forms(text) & found for text in synonyms)]


def _regions_of(model: "ModelSurface", photo: np.ndarray, vocabulary: Vocabulary, mentioned: list[int]) -> Regions:
    """The proposals of a photo that have a name of its caption."""
    encoded = model.encode([photo])[0]
    scores = to_float32(model.class_probabilities(encoded, vocabulary)).astype(np.float64)
    scores *= np.where(np.isin(np.arange(scores.shape[1]), mentioned), 1, np.exp(-UNMENTIONED))
    scores /= np.maximum(scores.sum(1, keepdims=True), 1e-30)
    masks, canvas = encoded.masks, encoded.canvas
    logits = np.asarray(masks.logits, np.float32)
    stride = canvas.padded[0] // logits.shape[1] if len(logits) else 1
    rows_in, columns_in = (-(-side // stride) for side in canvas.resized)
    shares = sigmoid(logits[:, :rows_in, :columns_in]).mean((1, 2), dtype=np.float64)
    rows: list[int] = []
    names: list[str] = []
    for k in mentioned:
        index = np.flatnonzero((scores[:, k] >= LEAST) & (shares >= SMALLEST))
        index = index[np.argsort(-scores[index, k], kind="stable")][:PROPOSALS]
        rows += index.tolist()
        names += ["|".join(vocabulary.synonyms[k])] * len(index)
    regions = to_float32(encoded.regions)[rows].astype(np.float16)
    return Regions(
        digest_of(photo), encoding_of(encoded.settings), regions, names, [False] * len(rows), shares[rows].tolist()
    )


def read_captions(path: Path, images: Path | None = None) -> list[Captioned]:
    """Photos with captions from a file.

    Args:
        path: JSON lines, or a table (.csv, .tsv) with a head; with "image" (the photo) and "caption".
        images: the directory of the photos; None: that of the file, or ``images`` in it.

    Raises:
        DataError: the file cannot be read, an entry is missing, or a photo is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _rows(text, path.suffix)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read {path}: {error}. Expected UTF-8 with an image and a caption in each line"
        ) from error
    found = []
    for number, row in rows:
        values = [row.get(key) if isinstance(row, dict) else None for key in ("image", "caption")]
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise DataError(
                f'{path}: line {number} has no "image" and "caption". Expected {{"image": "a.jpg", "caption": "a cow"}}'
                " in each line, or a table with these two columns"
            )
        found.append(Captioned(str(_photo_at(path, images, str(values[0]).strip(), number)), str(values[1])))
    if not found:
        raise DataError(f"{path} has no captions: check that it is the right file")
    return found


def _rows(text: str, suffix: str) -> list[tuple[int, Any]]:
    """The entries of a file, each with the number of its line; an entry that is no object or JSON is None."""
    if suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [(number, _json_of(line)) for number, line in lines]
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if suffix == ".tsv" else ",")
    return [(reader.line_num, row) for row in reader]


def _json_of(line: str) -> Any:
    try:
        return json_of(line)
    except ValueError:
        return None


def _photo_at(path: Path, images: Path | None, name: str, number: int) -> Path:
    candidates = [images / name] if images else [path.parent / name, path.parent / "images" / name]
    for place in candidates:
        found = existing_path(str(place))
        if found is not None and found.is_file():
            return place
    raise DataError(
        f"{path}: line {number} has the photo {name}, which is not at {candidates[0]}: give its directory (--images)"
    )
