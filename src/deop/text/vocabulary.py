"""Class names as people write them: names with synonyms, "everything else", templates, things and stuff."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deop.errors import VocabularyError
from deop.text.templates import parse_templates
from deop.text.things import is_thing

_SHOWN = 60  # characters of a name in a message


class VocabularyWarning(UserWarning):
    """A name is used, but not fully: it is too long for the text encoder, or equal to another name for it."""


@dataclass(frozen=True)
class Vocabulary:
    """The class names that pixels may get. ``Vocabulary.parse`` reads them in the forms that people write.

    Attributes:
        synonyms: K tuples of texts. The best score of a tuple counts, and its first text is the display name.
        background: texts for everything else: a pixel that one of them wins gets no name (-1).
        templates: sentences with ``{}`` that every text is put into; their embeddings are averaged. A model with a
            learned prompt does not use them.
        isthing: K flags, True for countable things, False for stuff; None if not known.

    Raises:
        VocabularyError: there are no names, a text is blank, two names have the same text, or the number of flags
            differs from the number of names.
    """

    synonyms: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    templates: tuple[str, ...] = parse_templates(None)
    isthing: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        for entry in (self.synonyms, self.background, self.templates, *self.synonyms):
            if isinstance(entry, str) or not isinstance(entry, Sequence):
                raise VocabularyError(
                    f"Vocabulary takes tuples of texts, not {entry!r}: Vocabulary.parse reads names in other forms"
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
        """``isthing``; if it is not known, a guess from the names (``deop.text.things``)."""
        return self.isthing or tuple(is_thing(name) for name in self.names)

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
        extra = tuple(_unique(text for name in _split(background, "background") for text in _synonyms(name)))
        if isinstance(names, Vocabulary):
            vocabulary = names
            if templates is not None:
                vocabulary = replace(vocabulary, templates=parse_templates(templates))
            if extra:
                vocabulary = replace(vocabulary, background=extra)
        else:
            synonyms = tuple(_synonyms(name) for name in _split(names, "names"))
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
        requested = {text.casefold() for name in _split(things, "things") for text in _synonyms(name)}
        if unknown := requested - {text.casefold() for texts in self.synonyms for text in texts}:
            raise VocabularyError(
                f"things that are not among the names: {', '.join(sorted(unknown))}. Write them as in the names"
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
        raise VocabularyError(f"{names!r} as {what}: give a list of strings, or one string with commas") from None
    for name in entries:
        if not isinstance(name, str):
            raise VocabularyError(f"{name!r} in the {what} is not a string: give strings")
    return entries


def _synonyms(name: str) -> tuple[str, ...]:
    """The different texts of a name, separated by '|'."""
    return tuple(_unique(_clean(text, "names", name) for text in name.split("|")))


def _clean(text: object, what: str, name: str | None = None) -> str:
    """A text in normal form, with single spaces."""
    if not isinstance(text, str):
        raise VocabularyError(f"{text!r} in the {what} is not a string: give strings")
    cleaned = unicodedata.normalize("NFC", " ".join(text.split()))
    if not cleaned:
        raise VocabularyError(
            f"{text if name is None else name!r} is blank or has a blank synonym: remove it, or write something before "
            "and after each '|' (and between separators)"
        )
    try:
        cleaned.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(
            f"the name {text!r} is not valid Unicode ({error.reason}): type it again, or save its file as UTF-8"
        ) from error
    return cleaned


def _unique(texts: Iterable[str]) -> Iterable[str]:
    """The texts without repetitions, as first written."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(text.casefold(), text)
    return first.values()


def shorten(text: str) -> str:
    """A name in an error message, truncated to 60 characters."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
