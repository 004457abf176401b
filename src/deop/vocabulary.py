"""What is looked for: names with synonyms, "everything else", templates, and their text embeddings (METHOD 4)."""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deop.errors import VocabularyError
from deop.stuff import is_thing
from deop.templates import NONE, fill, parse_templates
from deop.text_cache import EmbeddingCache

_TEXTS_WORTH_A_BAR = 200
_LEAST_NAMES_A_STEP = 16  # embedded between two writings of the cache
_SHOWN = 60  # letters of a name that a message repeats


class VocabularyWarning(UserWarning):
    """A name is used, but not as it was meant: longer than the text encoder can read, or the same to it as another."""


@dataclass(frozen=True)
class Vocabulary:
    """The names that pixels may get.

    Attributes:
        synonyms: K tuples of texts. The best score of a tuple counts, and its first text is the name.
        background: texts for everything else: a pixel that one of them wins gets no name (-1).
        templates: sentences with ``{}`` that every text is put into; their embeddings are averaged. A model with a
            learned prompt does not use them.
        isthing: K flags, True for countable things, False for stuff; None where that is not known.
    """

    synonyms: tuple[tuple[str, ...], ...]
    background: tuple[str, ...]
    templates: tuple[str, ...]
    isthing: tuple[bool, ...] | None = None

    @cached_property  # kept: one vocabulary serves many photos, and may have ten thousand names
    def names(self) -> tuple[str, ...]:
        """The K display names."""
        return tuple(texts[0] for texts in self.synonyms)

    @cached_property
    def things(self) -> tuple[bool, ...]:
        """``isthing``, guessed by the words of the names where it is not known."""
        return self.isthing or tuple(is_thing(name) for name in self.names)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts: the synonyms of each name in turn, then the background."""
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

        Blanks around a name are cut off and runs of blanks become one. Upper and lower case are kept for display, but
        "Cat" and "cat" are the same name: text encoders of this kind do not tell them apart.

        Args:
            names: ``["cat", "sofa|couch"]``, where ``|`` stands between synonyms, or one string ``"cat, sofa|couch"``.
                A string with a semicolon is divided at semicolons instead, and its commas stay in the names:
                ``"a red car, parked; a road"``; line breaks divide in both. Descriptions are fine as names. A
                Vocabulary is taken as it is, with what the other arguments say in its stead.
            background: what else there may be, in the same form: pixels that it wins get no name.
            templates: "single", "photo", "vild", "imagenet", "none", a sentence with ``{}``, or several. None: "vild".
            things: which of the names are countable things, in the same form; the others are stuff. None: not known.

        Returns:
            The vocabulary.

        Raises:
            VocabularyError: no names, a blank one, the same text twice in different names, unknown templates or things.
        """
        if isinstance(names, Vocabulary):
            known = names
            if templates is not None:
                known = replace(known, templates=parse_templates(templates))
        else:
            synonyms = tuple(_synonyms(name) for name in _divide(names, "names"))
            if not synonyms:
                raise VocabularyError("the list of names is empty: give at least one, such as 'cat'")
            known = cls(synonyms, (), parse_templates(templates))
        if extra := _divide(background, "background"):
            known = replace(known, background=_different(text for name in extra for text in _synonyms(name)))
        known._refuse_repeated()
        return known if things is None else replace(known, isthing=known._flags(things))

    def _refuse_repeated(self) -> None:
        """Two rows of the same text would tie, and the order of the names would decide."""
        seen: dict[str, int] = {}
        entries = [*self.synonyms, *((text,) for text in self.background)]
        for index, texts in enumerate(entries):
            for text in texts:
                other = seen.setdefault(text.casefold(), index)
                if other != index:
                    first, second = (self._describe(place) for place in (other, index))
                    raise VocabularyError(
                        f"{_short(text)!r} is both in {first} and in {second}: nothing could tell the two apart. Leave "
                        "one out, join them with '|', or make them differ in words (capital letters do not count)"
                    )

    def _describe(self, index: int) -> str:
        if index >= len(self.synonyms):
            return "the background"
        return f"name {index + 1} ({_short('|'.join(self.synonyms[index]))})"

    def _flags(self, things: Sequence[str] | str) -> tuple[bool, ...]:
        wanted = {text.casefold() for name in _divide(things, "things") for text in _synonyms(name)}
        if unknown := wanted - {text.casefold() for texts in self.synonyms for text in texts}:
            raise VocabularyError(
                f"things that are not among the names: {', '.join(sorted(unknown))}. Name them as in the names"
            )
        return tuple(any(text.casefold() in wanted for text in texts) for texts in self.synonyms)


@dataclass(frozen=True)
class Classes:
    """A vocabulary in the joint space.

    Attributes:
        rows: (M, C) float32 of unit length: every synonym of every name, then the background.
        owner: (M,) int64 in [0, K): which name a row belongs to; K for the background.
        names: the K display names.
        offset: (M,) float32 added to the logits of the rows, or None.
    """

    rows: Tensor
    owner: Tensor
    names: tuple[str, ...]
    offset: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "Classes":
        """The same on another device."""
        offset = None if self.offset is None else self.offset.to(device)
        return Classes(self.rows.to(device), self.owner.to(device), self.names, offset)


class TextEncoder(Protocol):
    """What embeds texts."""

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        ...

    @property
    def identity(self) -> str:
        """Changes whenever an embedding may change; fit for a file name."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        ...

    @property
    def uses_templates(self) -> bool:
        """Whether names are to be put into sentences."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens that a text takes of the context, all that is put around it included."""
        ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, C) float32, not normalised."""
        ...


def embed_vocabulary(
    vocabulary: Vocabulary,
    encoder: TextEncoder,
    cache: EmbeddingCache | None = None,
    *,
    progress: bool = False,
    batch_size: int = 256,
) -> Classes:
    """Embed every text of a vocabulary: normalise for each template, average, normalise (METHOD section 4).

    Args:
        vocabulary: the names.
        encoder: of texts.
        cache: where embeddings are kept between runs; None: nowhere.
        progress: show a bar on stderr where more than 200 sentences are to be encoded.
        batch_size: sentences encoded at once.

    Returns:
        The classes, on the CPU. They depend on the order of the names only in the order of their rows.

    Warns:
        VocabularyWarning: a name is longer than the encoder's context; its end has no effect. Or two names have the
            very same embedding, so that nothing but their order decides between them.
    """
    templates = vocabulary.templates if encoder.uses_templates else NONE
    texts = vocabulary.texts
    _warn_if_cut(texts, templates, encoder)
    known: dict[str, np.ndarray] = {}
    if cache is not None:
        known = cache.load(encoder.identity, templates, texts, encoder.width)
    # Sorted, so that which texts share a batch, and with it the last bits of a row, is no matter of their order.
    missing = sorted(set(texts) - known.keys(), key=lambda text: (len(text), text))
    some = max(_LEAST_NAMES_A_STEP, batch_size // len(templates))
    chunks: Iterable[list[str]] = [missing[start : start + some] for start in range(0, len(missing), some)]
    if progress and len(missing) * len(templates) > _TEXTS_WORTH_A_BAR:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)  # what goes to stdout may be read by a program
        chunks = track(chunks, f"embedding {len(missing)} names", total=len(chunks), console=console)  # type: ignore[arg-type]
    for chunk in chunks:
        rows = dict(zip(chunk, embed_texts(chunk, templates, encoder, batch_size).numpy(), strict=True))
        known |= rows
        if cache is not None:
            cache.store(encoder.identity, templates, rows)
    owner = [index for index, synonyms in enumerate(vocabulary.synonyms) for _ in synonyms]
    owner += [len(vocabulary.synonyms)] * len(vocabulary.background)
    table = np.stack([known[text] for text in texts])
    _warn_if_alike(texts, table, owner)
    return Classes(torch.from_numpy(table), torch.tensor(owner), vocabulary.names)


@torch.no_grad()
def embed_texts(texts: Sequence[str], templates: Sequence[str], encoder: TextEncoder, batch_size: int = 256) -> Tensor:
    """One row a text: mean over templates of its normalised embeddings, normalised (METHOD section 4).

    Args:
        texts: n texts.
        templates: sentences with ``{}``.
        encoder: of texts.
        batch_size: sentences encoded at once.

    Returns:
        (n, C) float32 of unit length, on the CPU.
    """
    sentences = [fill(template, text) for text in texts for template in templates]
    parts = [encoder.embed(sentences[start : start + batch_size]) for start in range(0, len(sentences), batch_size)]
    return average_templates(torch.cat(parts).unflatten(0, (len(texts), len(templates)))).cpu()


def average_templates(embeddings: Tensor) -> Tensor:
    """(n, templates, C) -> (n, C) of unit length: normalise, average, normalise again (METHOD section 4)."""
    return _normalize(_normalize(embeddings).mean(-2))


def _normalize(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _divide(names: Sequence[str] | str, what: str) -> list[str]:
    """The entries of a list, or of a string, which may end in a separator."""
    if isinstance(names, str):
        mark = ";" if ";" in names else ","
        whole = names.strip().removesuffix(mark)
        return re.split(rf"{mark}?\s*\n\s*|{mark}", whole) if whole else []
    try:
        entries = list(names)
    except TypeError:
        raise VocabularyError(f"{names!r} as {what}: give a list of strings, or one string with commas") from None
    for name in entries:
        if not isinstance(name, str):
            raise VocabularyError(f"{name!r} in the {what} is no text: give strings")
    return entries


def _synonyms(name: str) -> tuple[str, ...]:
    texts = [unicodedata.normalize("NFC", " ".join(text.split())) for text in name.split("|")]
    if not all(texts):
        raise VocabularyError(
            f"{name!r} is blank or has a blank synonym: leave it out, or write something before and after each '|' "
            "(and between separators)"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise VocabularyError(f"the name {name!r} is not valid Unicode: {error.reason}. Write it anew") from error
    return _different(texts)


def _different(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts, each once, as first written."""
    kept: dict[str, str] = {}
    for text in texts:
        kept.setdefault(text.casefold(), text)
    return tuple(kept.values())


def _warn_if_cut(texts: Sequence[str], templates: Sequence[str], encoder: TextEncoder) -> None:
    around = {template: encoder.count_tokens(fill(template, "")) for template in templates}
    template = max(templates, key=lambda template: around[template])
    for text in texts:
        # A token is at least one byte, and folding a letter makes at most three of one: for nearly all names this says
        # without the tokenizer that they are short enough.
        if around[template] + len(text.encode()) * (1 if text.isascii() else 3) <= encoder.context_length:
            continue
        if (taken := encoder.count_tokens(fill(template, text))) > encoder.context_length:
            warnings.warn(
                f"the name {_short(text)!r} takes {taken} tokens with what stands around it, and the text encoder "
                f"reads {encoder.context_length}: its end is cut off and has no effect. Shorten it",
                VocabularyWarning,
                stacklevel=3,
            )


def _warn_if_alike(texts: Sequence[str], rows: np.ndarray, owner: Sequence[int]) -> None:
    seen: dict[bytes, int] = {}
    alike = []
    for place, row in enumerate(rows):
        first = seen.setdefault(row.tobytes(), place)
        if owner[first] != owner[place]:
            alike.append((first, place))
    if alike:
        one, other = (_short(texts[place]) for place in alike[0])
        more = f" (and {len(alike) - 1} more like these)" if len(alike) > 1 else ""
        warnings.warn(
            f"the text encoder cannot tell {one!r} from {other!r}{more}: of such names the one that is given first "
            "wins. Make them differ, in words that it reads",
            VocabularyWarning,
            stacklevel=3,
        )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
