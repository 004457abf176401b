"""Class names as people write them: names with synonyms, "everything else", templates, things and stuff."""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from deop.errors import VocabularyError
from deop.text.everything_else import means_everything_else
from deop.text.templates import parse_templates
from deop.text.things import is_thing

if TYPE_CHECKING:
    from deop.bank.bank import Bank

_SHOWN = 60  # characters of a name in a message
_LISTED = 8  # names in a message
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF), None)
"""Soft hyphens, spaces of no width, marks of direction and byte order, which copied text may contain."""


class VocabularyWarning(UserWarning):
    """A name or template is not used as it was meant: part of it is not read, or it equals another name."""


@dataclass(frozen=True)
class Vocabulary:
    """The class names that pixels may get. ``Vocabulary.parse`` reads them in the forms that people write.

    A name such as "background" or "other" means everything that the other names do not: ``everything_else``.

    Attributes:
        synonyms: K tuples of texts. The best score of a tuple counts, and its first text is the display name.
        background: texts for everything else: a pixel that one of them wins gets no name (-1).
        templates: sentences with ``{}`` that every text is put into; their embeddings are averaged. A model with a
            learned prompt does not use them.
        isthing: K flags, True for countable things, False for stuff; None if not known.
        source: name of the built-in vocabulary (``deop.text.builtin``): all names are asked, but a photo keeps only
            those that it shows. None: names that somebody chose, which are all kept.
        bank: examples of the names, which count beside the words; None: words alone.
        bank_weight: how much they count, in [0, 1]: 0 words alone, 1 examples alone where there are some. None: as
            fitted on the bank, which is 0.5.

    Raises:
        VocabularyError: there are no names, a text is blank, two names have the same text, or the number of flags
            differs from the number of names.
    """

    synonyms: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    templates: tuple[str, ...] = parse_templates(None)
    isthing: tuple[bool, ...] | None = None
    source: str | None = None
    bank: "Bank | None" = None
    bank_weight: float | None = None

    def __post_init__(self) -> None:
        groups = self.synonyms if isinstance(self.synonyms, Sequence) else ()
        for entry in (self.synonyms, self.background, self.templates, *groups):
            if isinstance(entry, str) or not isinstance(entry, Sequence):
                raise VocabularyError(
                    f"Vocabulary takes tuples of texts, not {quoted(entry)}: Vocabulary.parse reads other forms"
                )
        synonyms = tuple(tuple(_clean(text, "names") for text in texts) for texts in self.synonyms)
        background = tuple(_clean(text, "background") for text in self.background)
        if not synonyms:
            raise VocabularyError("the list of names is empty: give at least one, such as 'cat'")
        if () in synonyms:
            raise VocabularyError("a name has an empty tuple of texts: give each name at least one text")
        object.__setattr__(self, "synonyms", synonyms)
        object.__setattr__(self, "background", background)
        object.__setattr__(self, "templates", parse_templates(tuple(self.templates)))
        if self.isthing is not None:
            if isinstance(self.isthing, str) or not isinstance(self.isthing, Sequence):
                raise VocabularyError(f"isthing must have True or False for each name, not {quoted(self.isthing)}")
            object.__setattr__(self, "isthing", tuple(bool(flag) for flag in self.isthing))
            if len(self.isthing) != len(synonyms):
                raise VocabularyError(f"isthing has {len(self.isthing)} flags for {len(synonyms)} names: give one each")
        self._refuse_repeated()

    @cached_property  # one vocabulary serves many photos, and may have ten thousand names
    def names(self) -> tuple[str, ...]:
        """The K display names."""
        return tuple(texts[0] for texts in self.synonyms)

    @cached_property
    def things(self) -> tuple[bool, ...]:
        """``isthing``; if it is not known, a guess from the names (``deop.text.things``). Everything else is stuff."""
        flags = self.isthing or tuple(is_thing(name) for name in self.names)
        return tuple(flag and index not in self._everything_else for index, flag in enumerate(flags))

    @property
    def everything_else(self) -> int | None:
        """Index of the name that means everything that the others do not, such as "background" or "other", or None.

        It competes as "none of these" does, and gets the pixels that no other name gets. If several names mean this,
        it is the first; the others get no pixels.

        >>> Vocabulary.parse("cup, Background|backdrop").everything_else
        1
        """
        return self._everything_else[0] if self._everything_else else None

    @cached_property
    def _everything_else(self) -> tuple[int, ...]:
        """Indices of all names that mean everything else."""
        return tuple(k for k, texts in enumerate(self.synonyms) if any(map(means_everything_else, texts)))

    def check_mode(self, mode: str, *, warn: bool = True) -> None:
        """Check that a mode can find the names.

        Args:
            mode: "semantic", "panoptic" or "instance", which finds things only.
            warn: whether to warn.

        Raises:
            VocabularyError: no name can be found, because none is a thing.

        Warns:
            VocabularyWarning: some names cannot be found, because they are guessed to be stuff.
        """
        if mode != "instance" or self.source is not None:
            return
        if not any(self.things):
            raise VocabularyError(
                f"instance mode finds countable things only, and no name is a thing ({_list(self.names)}): use "
                f'semantic or panoptic mode, or say which names are things with things="{shorten(self.names[0])}" '
                "(--things)"
            )
        stuff = [name for k, name in enumerate(self.names) if not self.things[k] and k not in self._everything_else]
        if warn and stuff and self.isthing is None:
            things = ", ".join(name for name, isthing in zip(self.names, self.things, strict=True) if isthing)
            warnings.warn(
                f"instance mode finds countable things only; these names are taken for stuff and cannot be found: "
                f"{_list(stuff)}. If they are things, list all things with things=... (--things "
                f'"{shorten(things)}, {shorten(stuff[0])}")',
                VocabularyWarning,
                stacklevel=3,
            )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All M texts: the synonyms of each name in turn, then the background."""
        return tuple(text for texts in self.synonyms for text in texts) + self.background

    @classmethod
    def parse(
        cls,
        names: "Sequence[str] | str | Vocabulary",
        background: Sequence[str] | str = (),
        templates: str | Sequence[str] | None = None,
        things: Sequence[str] | str | None = None,
    ) -> "Vocabulary":
        """Read names as people write them.

        White space around a name is removed, and inside it becomes a single space. Upper and lower case are kept for
        display, but "Cat" and "cat" are the same name: text encoders of this kind do not distinguish them.

        Args:
            names: ``["cat", "sofa|couch"]``, where ``|`` separates synonyms, or one string ``"cat, sofa|couch"``. A
                string with a semicolon is split at semicolons instead, and its commas stay part of the names:
                ``"a red car, parked; a road"``. Line breaks split in both cases. Descriptions are fine as names. A
                ``Vocabulary`` is kept, except for what the other arguments replace.
            background: names of everything else that the photo may show, in the same form: pixels that they win get no
                name.
            templates: "single", "photo", "vild", "imagenet", "none", a sentence with ``{}``, or several. None: "vild".
            things: which of the names are countable things, in the same form; the others are stuff. None: not known.

        Returns:
            The vocabulary.

        Raises:
            VocabularyError: there are no names, a name is blank, two names have the same text, an argument is a set
                (which has no order), or templates or things are unknown.

        >>> Vocabulary.parse("cat, sofa|couch").synonyms
        (('cat',), ('sofa', 'couch'))
        >>> Vocabulary.parse("a red car, parked; a road").names
        ('a red car, parked', 'a road')
        """
        extra = tuple(_unique(text for name in _split(background, "background") for text in split_name(name)))
        if isinstance(names, Vocabulary):
            vocabulary = names
            if templates is not None:
                vocabulary = replace(vocabulary, templates=parse_templates(templates))
            if extra:
                vocabulary = replace(vocabulary, background=extra)
        else:
            synonyms = tuple(split_name(name) for name in _split(names, "names"))
            vocabulary = cls(synonyms, extra, parse_templates(templates))
        return vocabulary if things is None else replace(vocabulary, isthing=vocabulary._thing_flags(things))

    def _refuse_repeated(self) -> None:
        """Two rows with the same text would tie, and the order of the names would decide."""
        first_with: dict[str, int] = {}
        entries = [*self.synonyms, *((text,) for text in self.background)]
        for index, texts in enumerate(entries):
            for text in texts:
                first = first_with.setdefault(text.casefold(), index)
                if first != index:
                    places = " and in ".join(self._describe(place) for place in (first, index))
                    raise VocabularyError(
                        f"{shorten(text)!r} is both in {places}, which cannot be distinguished. Remove one of them, "
                        "join them with '|', or use different words (upper and lower case are equal)"
                    )

    def _describe(self, index: int) -> str:
        if index >= len(self.synonyms):
            return "the background"
        return f"name {index + 1} ({shorten('|'.join(self.synonyms[index]))})"

    def _thing_flags(self, things: Sequence[str] | str) -> tuple[bool, ...]:
        requested = {text.casefold() for name in _split(things, "things") for text in split_name(name)}
        if unknown := requested - {text.casefold() for texts in self.synonyms for text in texts}:
            raise VocabularyError(
                f"things that are not among the names: {', '.join(sorted(unknown))}. Write them as in the names"
            )
        if wrong := sorted(requested & {text.casefold() for k in self._everything_else for text in self.synonyms[k]}):
            raise VocabularyError(
                f"{shorten(wrong[0])!r} means everything else, which cannot be a thing: remove it from the things"
            )
        return tuple(any(text.casefold() in requested for text in texts) for texts in self.synonyms)


def _split(names: Sequence[str] | str, what: str) -> list[str]:
    """The entries of a list, or of a string, which may end in a separator."""
    if isinstance(names, str):
        mark = ";" if ";" in names else ","
        whole = names.strip().removesuffix(mark)
        return re.split(rf"{mark}?\s*\n\s*|{mark}", whole) if whole else []
    if isinstance(names, (set, frozenset)):
        raise VocabularyError(
            f"the {what} are a set, which has no order, so the ids of the names would change from run to run: give a "
            "list, for instance sorted(names)"
        )
    try:
        entries = list(names)
    except TypeError:
        raise VocabularyError(f"{quoted(names)} as {what}: give a list of strings, or one string with commas") from None
    for name in entries:
        if not isinstance(name, str):
            raise VocabularyError(f"{quoted(name)} in the {what} is not a string: give strings")
    return entries


def split_name(name: str) -> tuple[str, ...]:
    """The different texts of a name, separated by '|'."""
    return tuple(_unique(_clean(text, "names", name) for text in name.split("|")))


def _clean(text: object, what: str, name: str | None = None) -> str:
    """A text in normal form, with single spaces."""
    if not isinstance(text, str):
        raise VocabularyError(f"{quoted(text)} in the {what} is not a string: give strings")
    cleaned = _normal(text)
    # Nearly all texts are printable, which is quicker to find out.
    controls = "" if cleaned.isprintable() else cleaned
    if control := next((letter for letter in controls if unicodedata.category(letter) == "Cc"), None):
        raise VocabularyError(
            f"the name {quoted(text)} has the control character U+{ord(control):04X}, which cannot be shown: remove it"
        )
    if not cleaned:
        raise VocabularyError(
            f"{quoted(text if name is None else name)} is blank or has a blank synonym: remove it, or write something "
            "before and after each '|' (and between separators)"
        )
    try:
        cleaned.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"the name {quoted(text)} is not valid Unicode ({error.reason}): type it again, or save its file as UTF-8"
        ) from error
    return cleaned


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.translate(_INVISIBLE).split()))


def name_key(text: str) -> str:
    """What is equal for all spellings of one name: upper and lower case, spaces, and forms of Unicode do not count.

    >>> name_key(" Caf\u0065\u0301 ") == name_key("caf\u00e9")
    True
    """
    return _normal(text).casefold()


def _unique(texts: Iterable[str]) -> Iterable[str]:
    """The texts without repetitions, as first written."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(text.casefold(), text)
    return first.values()


def _list(names: Sequence[str]) -> str:
    """Names in a message, the first few of many."""
    shown = ", ".join(shorten(name) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def shorten(text: str) -> str:
    """A name in an error message, truncated to 60 characters."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def quoted(value: object) -> str:
    """Any value in an error message, as Python writes it, truncated as names are."""
    return shorten(repr(value))
