"""``Bank``: embeddings of example regions by name, in an order that does not depend on how they were added."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from deop.bank.space import Space
from deop.bank.storage import bank_to_bytes, read_bank, save_bank
from deop.errors import SettingError, VocabularyError
from deop.text.vocabulary import Vocabulary, shorten

MAX_REGIONS = 100_000
"""Examples in a bank. All of them are compared with every region, by one matrix product."""

UNMARKED = ""
"""The name of unmarked regions of example photos: they only show what else there is."""

NOT = "-"
"""What the name of a negative example begins with: "-cup" is a region that is not a cup."""


_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Bank:
    """Example regions by name (docs/method.md §14).

    The constructor sorts the examples and drops repeated ones, so that two banks with the same examples are equal, in
    whatever order they were added. An unmarked region that was marked in another step is no longer unmarked.

    Attributes:
        space: the model and the options that computed the embeddings.
        names: n names, sorted; "cup|mug" has synonyms, "-cup" is for regions that are not a cup, and "" for unmarked
            regions of the example photos.
        photos: p digests of the example photos, sorted.
        regions: (R, C) float16, L2-normalised embeddings.
        name_of: (R,) int32, index of the name of each region.
        photo_of: (R,) int32, index of its photo.
        marked: (R,) bool; True for a marked mask itself, False for a proposal inside one.
        area: (R,) float32, share of the photo that the region covers, in [0, 1].

    Raises:
        VocabularyError: a blank name, or names that share a synonym without being the same.
        SettingError: more than ``MAX_REGIONS`` regions.
    """

    space: Space
    names: tuple[str, ...]
    photos: tuple[str, ...]
    regions: np.ndarray
    name_of: np.ndarray
    photo_of: np.ndarray
    marked: np.ndarray
    area: np.ndarray

    def __post_init__(self) -> None:
        if len(self.regions) > MAX_REGIONS:
            raise SettingError(
                f"the bank would have {len(self.regions):,} regions, and the limit is {MAX_REGIONS:,}: keep fewer of "
                "each name (--limit), or divide the names among several banks"
            )
        names, name_of = _sorted_texts([clean_name(name) for name in self.names], self.name_of)
        photos, photo_of = _sorted_texts(self.photos, self.photo_of)
        _refuse_clashes(names)
        regions = np.ascontiguousarray(self.regions, np.float16)
        marked, area = np.asarray(self.marked, bool), np.asarray(self.area, np.float32)
        order = np.lexsort((area, ~marked, *_row_keys(regions), photo_of, name_of))
        if not np.array_equal(order, np.arange(len(order))):  # a stored bank is sorted, and stays mapped from its file
            regions, name_of, photo_of = regions[order], name_of[order], photo_of[order]
            marked, area = marked[order], area[order]
        repeated = _repeated(names, regions, name_of, photo_of)
        if repeated.any():
            kept = ~repeated
            regions, name_of, photo_of = regions[kept], name_of[kept], photo_of[kept]
            marked, area = marked[kept], area[kept]
            names, name_of = _sorted_texts(names, name_of)
        values = {"names": names, "photos": photos, "regions": regions, "name_of": name_of, "photo_of": photo_of}
        for key, value in {**values, "marked": marked, "area": area}.items():
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.regions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bank) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content and of the model's identity, as hexadecimal digits."""
        digest = hashlib.sha256(repr((self.names, self.photos, self.space.key())).encode())
        for array in (self.regions, self.name_of, self.photo_of, self.marked, self.area):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def empty(cls, space: Space, width: int) -> "Bank":
        """A bank without examples."""
        none = np.zeros(0, np.int32)
        return cls(space, (), (), np.zeros((0, width), np.float16), none, none, none.astype(bool), none)

    @classmethod
    def merged(cls, banks: Iterable["Bank"]) -> "Bank":
        """One bank with the examples of several.

        Raises:
            SettingError: banks of different models, or too many regions.
            VocabularyError: names that share a synonym without being the same.
        """
        parts = list(banks)
        for other in parts[1:]:
            parts[0].space.check_same(other.space, "the banks cannot be merged")
        spelling: dict[str, str] = {}
        for name in sorted(name for bank in parts for name in bank.names):
            spelling.setdefault(name.casefold(), name)
        names = tuple(spelling.values())
        index = {key: place for place, key in enumerate(spelling)}
        photos = tuple(sorted({photo for bank in parts for photo in bank.photos}))
        place_of = {photo: place for place, photo in enumerate(photos)}
        name_of = [np.array([index[n.casefold()] for n in bank.names], np.int32)[bank.name_of] for bank in parts]
        photo_of = [np.array([place_of[photo] for photo in bank.photos], np.int32)[bank.photo_of] for bank in parts]
        return cls(
            parts[0].space.joined([bank.space for bank in parts]),
            names,
            photos,
            np.concatenate([bank.regions for bank in parts]),
            np.concatenate(name_of),
            np.concatenate(photo_of),
            np.concatenate([bank.marked for bank in parts]),
            np.concatenate([bank.area for bank in parts]),
        )

    def with_space(self, space: Space) -> "Bank":
        """The same examples with another description of the model."""
        return replace(self, space=space)

    def kept(self, index: np.ndarray) -> "Bank":
        """The bank with some of the regions only, by (R,) bool or their indices."""
        rows = (self.regions, self.name_of, self.photo_of, self.marked, self.area)
        regions, name_of, photo_of, marked, area = (values[index] for values in rows)
        used, name_of = np.unique(name_of, return_inverse=True)
        names = tuple(self.names[place] for place in used)
        seen, photo_of = np.unique(photo_of, return_inverse=True)
        photos = tuple(self.photos[place] for place in seen)
        return Bank(self.space, names, photos, regions, name_of, photo_of, marked, area)

    def without(self, names: Collection[str]) -> "Bank":
        """The bank without the examples of some names, also negative ones ("-cup").

        Raises:
            VocabularyError: a name that the bank does not have.
        """
        places = []
        for name in names:
            wanted = _texts_of(clean_name(name))
            found = [place for place, known in enumerate(self.names) if _texts_of(known) & wanted]
            if not found:
                raise VocabularyError(f"the bank has no examples of {shorten(name)!r}: it has {self.list_names()}")
            places += found
        return self.kept(~np.isin(self.name_of, places))

    def limited(self, count: int) -> "Bank":
        """The bank with at most ``count`` regions of each name, of as many photos as possible.

        Of each photo, marked masks are kept before proposals, and large regions before small ones.

        Raises:
            SettingError: a count below 1.
        """
        if count < 1:
            raise SettingError(f"a limit of {count} regions per name keeps nothing: give 1 or more")
        order = np.lexsort((-self.area, ~self.marked, self.photo_of, self.name_of))
        group = self.name_of[order].astype(np.int64) * max(1, len(self.photos)) + self.photo_of[order]
        rank = _place_in_group(group)
        by_rank = np.lexsort((np.arange(len(order)), rank, self.name_of[order]))
        place = _place_in_group(self.name_of[order][by_rank])
        return self.kept(np.sort(order[by_rank[place < count]]))

    def filtered(self, keep: Callable[[str], bool]) -> "Bank":
        """The bank with the names for which a function is true."""
        return self.kept(np.isin(self.name_of, [place for place, name in enumerate(self.names) if keep(name)]))

    @property
    def named(self) -> tuple[str, ...]:
        """The names that have examples of what they are, and not only of what they are not."""
        return tuple(name for name in self.names if name != UNMARKED and not name.startswith(NOT))

    def without_photos(self, photos: Collection[str]) -> "Bank":
        """The bank without the examples of some photos, by their digests; those that it does not have are ignored."""
        places = [place for place, photo in enumerate(self.photos) if photo in photos]
        return self.kept(~np.isin(self.photo_of, places))

    def list_names(self, limit: int = 8) -> str:
        """Its names in a message."""
        names = [shorten(name) for name in self.names if name != UNMARKED]
        return (", ".join(names[:limit]) + (", ..." if len(names) > limit else "")) or "no names"

    def counts(self) -> dict[str, tuple[int, int]]:
        """For each name the number of its regions and of the photos that they are from."""
        return {
            name: (int((self.name_of == place).sum()), len(np.unique(self.photo_of[self.name_of == place])))
            for place, name in enumerate(self.names)
        }

    def columns(self, vocabulary: Vocabulary) -> np.ndarray:
        """Which of the K names of a vocabulary each name of the bank is.

        Returns:
            (n,) int: index of the name; K for a background name; -1 for one that is not asked for. A negative name has
            the index of the name that it is not.

        Raises:
            VocabularyError: two names of the vocabulary are one name of the bank.
        """
        count = len(vocabulary.names)
        place_of = {text.casefold(): k for k, texts in enumerate(vocabulary.synonyms) for text in texts}
        place_of |= {text.casefold(): count for text in vocabulary.background}
        columns = np.full(len(self.names), -1, np.int64)
        for index, name in enumerate(self.names):
            found = sorted({place_of[text] for text in _texts_of(name.removeprefix(NOT)) if text in place_of})
            if len(found) > 1:
                shown = [vocabulary.names[k] if k < count else "the background" for k in found[:2]]
                raise VocabularyError(
                    f"{shown[0]!r} and {shown[1]!r} are one name of the bank, {name!r}: join them with '|', or ask for "
                    "one of them"
                )
            columns[index] = found[0] if found else -1
        return columns

    def save(self, path: str | Path) -> Path:
        """Write the bank into one safetensors file; an existing file is replaced when the new one is complete.

        Returns:
            The path, with the suffix ``.safetensors`` if it had none.

        Raises:
            OutputError: the file cannot be written.
        """
        return save_bank(self, path)

    def to_bytes(self) -> bytes:
        """The content of the file that ``save`` writes, to send it elsewhere."""
        return bank_to_bytes(self)

    @classmethod
    def from_bytes(cls, content: bytes, *, limit: int = MAX_REGIONS, source: str = "the bank") -> "Bank":
        """The bank in the bytes of a file.

        Args:
            content: what ``to_bytes`` returned.
            limit: maximum number of regions.
            source: what messages call it.

        Raises:
            CheckpointError, SettingError, VocabularyError: as ``load_bank``.
        """
        return cls(**read_bank(source, limit, content))


def load_bank(path: str | Path) -> Bank:
    """Open a bank that ``Bank.save`` or ``deop learn`` wrote. Its embeddings are mapped from the file.

    Args:
        path: the file; the suffix ``.safetensors`` may be omitted.

    Raises:
        CheckpointError: no such file, no bank, a newer version, or a damaged one.
        SettingError: a bank with more than ``MAX_REGIONS`` regions.
        VocabularyError: names that share a word without being the same.
    """
    return Bank(**read_bank(path, MAX_REGIONS))


def clean_name(name: object) -> str:
    """A name as the bank stores it: without surrounding blanks, also around "|" and after "-".

    Raises:
        VocabularyError: no text, or a blank name.

    >>> clean_name(" sofa | couch "), clean_name("- cup")
    ('sofa|couch', '-cup')
    """
    if not isinstance(name, str):
        raise VocabularyError(f"the name of an example must be a string, not {name!r}")
    if name == UNMARKED:
        return UNMARKED
    text = " ".join(name.split())
    sign = NOT if text.startswith(NOT) else ""
    texts = [part.strip() for part in text.removeprefix(NOT).split("|")]
    if not all(texts):
        raise VocabularyError(f"the name of an example is blank: {name!r}. Give it a name such as 'cup'")
    return sign + "|".join(texts)


def names_to_ask(names: Iterable[str], background: Sequence[str] | str = ()) -> list[str]:
    """The names to look for if only examples are given: those that have positive ones, sorted, each once.

    Args:
        names: the names of examples.
        background: names of what nobody is looking for, which are omitted.

    Raises:
        VocabularyError: there are none.

    >>> names_to_ask(["zindle", "-cup", "Ring|band", "zindle", "ring|band"], background="paper")
    ['Ring|band', 'zindle']
    """
    others = {text.casefold() for text in Vocabulary.parse("any", background).background}
    found: dict[str, str] = {}
    for name in sorted(map(clean_name, names)):
        if name != UNMARKED and not name.startswith(NOT) and others.isdisjoint(_texts_of(name)):
            found.setdefault(name.casefold(), name)
    if not found:
        raise VocabularyError("the examples have no names to ask for: give class names, or mark what has a name")
    return sorted(found.values(), key=str.casefold)


def _texts_of(name: str) -> set[str]:
    """The synonyms of a name, in lower case; those of a negative name keep its sign."""
    sign = NOT if name.startswith(NOT) else ""
    return {sign + text.casefold() for text in name.removeprefix(NOT).split("|")} if name else {UNMARKED}


def _refuse_clashes(names: Sequence[str]) -> None:
    owner: dict[str, str] = {}
    for name in names:
        for text in _texts_of(name):
            other = owner.setdefault(text, name)
            if other != name:
                raise VocabularyError(
                    f"the bank has the names {other!r} and {name!r}, which share a word but are not the same: use one "
                    "spelling for both"
                )


def _sorted_texts(texts: Sequence[str], index: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Texts without repetitions in a fixed order, and what refers to them; texts that nothing refers to are dropped."""
    index = np.asarray(index, np.int32)
    spelling: dict[str, str] = {}
    for text in sorted(texts):
        spelling.setdefault(text.casefold(), text)
    used = {texts[place].casefold() for place in np.unique(index)} if len(texts) else set()
    keys = sorted(key for key in spelling if key in used)
    place_of = {key: place for place, key in enumerate(keys)}
    table = np.array([place_of.get(text.casefold(), -1) for text in texts], np.int32)
    return tuple(spelling[key] for key in keys), table[index] if len(texts) else index


def _repeated(names: Sequence[str], regions: np.ndarray, name_of: np.ndarray, photo_of: np.ndarray) -> np.ndarray:
    """Which sorted regions say nothing new, (R,) bool: repetitions, and unmarked regions that have a name too."""
    bits = regions.view(np.uint16)
    same = (name_of[1:] == name_of[:-1]) & (photo_of[1:] == photo_of[:-1]) & (bits[1:] == bits[:-1]).all(1)
    repeated = np.append(False, same) if len(regions) else np.zeros(0, bool)
    if UNMARKED in names:  # it is the first name
        unmarked = np.flatnonzero(name_of == 0)
        others = np.flatnonzero((name_of > 0) & np.isin(photo_of, photo_of[unmarked]))
        known = {(int(photo_of[row]), bits[row].tobytes()) for row in others}
        found = [(int(photo_of[row]), bits[row].tobytes()) in known for row in unmarked]
        repeated[unmarked[np.array(found, bool)]] = True
    return repeated


def _row_keys(regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers for each row, by which rows are sorted: faster than by all of their values, and as good."""
    width = regions.shape[1]
    factors = np.arange(1, 2 * width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    keys = np.zeros((2, len(regions)), np.uint64)
    for first in range(0, len(regions), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        bits = regions[part].view(np.uint16).astype(np.uint64)
        keys[0, part], keys[1, part] = bits @ factors[:width], bits @ factors[width:]
    return keys[0], keys[1]


def _place_in_group(group: np.ndarray) -> np.ndarray:
    """Position of each value among equal neighbours: [3, 3, 5] -> [0, 1, 0]."""
    if not len(group):
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))
