"""Vocabularies in the joint space of images and text: one embedding per synonym, and how to offset its scores."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deop.arrays import to_float32
from deop.errors import VocabularyError
from deop.protocols import TextEncoder, is_table
from deop.text.calibration import Calibration
from deop.text.embedded_classes import Classes
from deop.text.embedding_cache import EmbeddingCache
from deop.text.everything_else import COMMON, SAME_MEANING, means_everything_else, names_the_same
from deop.text.templates import NONE, fill
from deop.text.vocabulary import Vocabulary, VocabularyWarning, shorten
from deop.text.words import WordReader

_SENTENCES_WITHOUT_PROGRESS = 200
_MIN_NAMES_PER_STEP = 16  # embedded between two writes to the cache


def embed_vocabulary(
    vocabulary: Vocabulary,
    encoder: TextEncoder,
    calibration: Calibration | None = None,
    *,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
    batch_size: int = 256,
) -> Classes:
    """Embed a vocabulary and calibrate it: add rows for "everything else" and an offset for seen names.

    A name that means everything else, such as "background", is not embedded: its rows are those of the rivals, or of a
    list of common things and stuff (``deop.text.everything_else``) if the model has no rivals. A synonym of it with
    another meaning, as in "background|sky", has a row too.

    Args:
        vocabulary: the class names.
        encoder: the text encoder.
        calibration: rivals and seen names of the model; None: the embeddings alone, also of "background". The rivals
            are not used if the vocabulary has background names, except where one of these means everything else.
        cache: the cache of embeddings on disk, or None. Encoders with ``is_table`` do not use it.
        progress: show a progress bar on stderr when more than 200 sentences must be encoded.
        batch_size: sentences encoded at once.

    Returns:
        The classes. The order of the names affects nothing but the order of their rows. An encoder with weights that
        are trained should be called under ``torch.no_grad()``, which saves memory.

    Raises:
        VocabularyError: a name of which the encoder reads nothing.

    Warns:
        VocabularyWarning: a name is longer than the encoder's context, so its end has no effect; or the encoder does
            not read some of its letters; or two names have exactly the same embedding, so that only their order decides
            between them; or two names mean everything else.
    """
    if calibration is not None and vocabulary.source is not None:
        # The penalty serves rare names that somebody asks for. In a long list it lets chance names win everywhere.
        calibration = replace(calibration, seen_penalty=0.0)
    templates = vocabulary.templates if encoder.uses_templates else NONE
    if is_table(encoder):
        cache = None
    request = _Request.of(vocabulary, calibration, encoder)
    _warn_if_cut(request.texts, templates, encoder)
    similar = calibration is not None and calibration.needs_similarity and bool(request.texts)
    compared = calibration.rivals if calibration is not None and similar else ()
    texts = tuple(dict.fromkeys((*request.texts, *request.rivals, *compared)))
    table = _embed_cached(texts, templates, encoder, cache, progress, batch_size)
    rows, rival_rows, compared_rows = (
        np.stack([table[text] for text in part]) if part else np.zeros((0, encoder.width), np.float32)
        for part in (request.texts, request.rivals, compared)
    )
    nearest = (compared_rows @ rows.T).max(0) if compared else None
    _warn_if_alike(request.texts, rows, request.owner)
    owner = np.array(request.owner, np.int64)
    classes = Classes(rows, owner, vocabulary.names, everything_else=request.everything_else)
    if calibration is None:
        return classes
    rivals = request.rivals
    if rivals and not calibration.rivals:  # the similarity of the settings is meant for the model's own rivals
        kept = _different_meaning(rivals, rival_rows, request.texts, classes.rows)
        rivals, rival_rows = tuple(rivals[index] for index in kept), rival_rows[kept]
        calibration = replace(calibration, rival_similarity=float("inf"))
    heads = readable = None
    if calibration.seen_penalty and isinstance(encoder, WordReader):
        heads = [encoder.head(text) for text in request.texts]
        readable = [encoder.knows(text) for text in request.texts]
    rival_table = rival_rows if len(rivals) else None
    return calibrate_classes(classes, request.texts, calibration, rivals, rival_table, nearest, heads, readable)


@dataclass(frozen=True)
class _Request:
    """The texts that a vocabulary asks of a text encoder.

    Attributes:
        texts: the texts of the names and of the background.
        owner: for each the index of its name; K for the background.
        rivals: texts of everything else.
        everything_else: index of the name that they belong to; None: to none of the names.
    """

    texts: tuple[str, ...]
    owner: tuple[int, ...]
    rivals: tuple[str, ...]
    everything_else: int | None

    @classmethod
    def of(cls, vocabulary: Vocabulary, calibration: Calibration | None, encoder: TextEncoder) -> "_Request":
        """The texts that are embedded; names that mean everything else are replaced, unless training used them."""
        entries = [(text, k) for k, texts in enumerate(vocabulary.synonyms) for text in texts]
        entries += [(text, len(vocabulary.synonyms)) for text in vocabulary.background]
        rivals: tuple[str, ...] = ()
        everything_else = None
        if calibration is not None:
            _warn_if_several_mean_everything_else(vocabulary)
            trained = {name.casefold() for name in calibration.trained_names}
            everything_else = vocabulary.everything_else
            meant = [(text, k) for text, k in entries if means_everything_else(text)]
            entries = [(text, k) for text, k in entries if (text, k) not in meant or text.casefold() in trained]
            if meant:
                rivals = calibration.rivals or COMMON
            elif not vocabulary.background:
                rivals = calibration.rivals
        entries = _readable(entries, encoder, _wordless(vocabulary))
        if calibration is not None and calibration.groups:
            entries += _members(entries, dict(calibration.groups), encoder)
        texts, owner = zip(*entries, strict=True) if entries else ((), ())
        return cls(texts, owner, rivals, everything_else)


def calibrate_classes(
    classes: Classes,
    texts: Sequence[str],
    calibration: Calibration,
    rivals: Sequence[str] = (),
    rival_rows: np.ndarray | None = None,
    nearest: np.ndarray | None = None,
    heads: Sequence[str] | None = None,
    readable: Sequence[bool] | None = None,
) -> Classes:
    """Add rows for "none of these", lower the rows of seen names if unseen names are requested too, and unknown words.

    Args:
        classes: the embeddings of the requested names.
        texts: the text of each of their M rows.
        calibration: calibration of the model.
        rivals: R names that stand for everything else.
        rival_rows: (R, C) float32 of unit length, their embeddings; None without rivals.
        nearest: (M,) float, the similarity of each row to the most similar rival of the model, or None if unknown.
        heads: the words that count most in each of the M texts, which make it seen if they are; None: the whole text.
        readable: whether the encoder knows the words of each of the M rows; None: it does.

    Returns:
        The classes with an offset, and with the rivals that differ from all requested names and belong to no name.
    """
    rows, owner, count = classes.rows, classes.owner, len(classes.rows)
    texts = list(texts)
    everything_else = len(classes.names) if classes.everything_else is None else classes.everything_else
    if rival_rows is not None:
        most = (rival_rows @ rows.T).max(1) if count else np.zeros(len(rival_rows), np.float32)
        far = np.flatnonzero(most < calibration.rival_similarity)
        rows = np.concatenate([rows, rival_rows[far]])
        owner = np.concatenate([owner, np.full(len(far), everything_else, np.int64)])
        texts += [rivals[index] for index in far.tolist()]
    if not calibration.seen_penalty:
        return replace(classes, rows=rows, owner=owner)
    trained = {name.casefold() for name in calibration.trained_names}
    seen = np.array([text.casefold() in trained for text in texts], bool)
    if heads is not None:
        seen[:count] |= np.array([head in trained for head in heads], bool)
    if nearest is not None:
        seen[:count] |= nearest >= calibration.seen_similarity
    # A name counts as seen if any of its synonyms does: a synonym that training lacked does not make the name new.
    names = [index for index in np.unique(owner[:count][seen[:count]]).tolist() if index != everything_else]
    seen |= np.isin(owner, [index for index in names if index < len(classes.names)])
    lowered, unknown = seen.copy(), np.zeros(len(texts), bool)
    if readable is not None:
        unknown[:count] = ~seen[:count] & ~np.array(readable, bool)
    if nearest is not None:
        lowered[:count] |= ~unknown[:count] & (nearest < calibration.far_similarity)
    # If every name is lowered alike, or none is, the offset would have no effect.
    mixed = lowered.any() and not (lowered | unknown)[:count].all()
    offset = np.zeros(len(texts), np.float32)
    offset[lowered] -= calibration.seen_penalty * mixed
    offset[unknown] -= calibration.seen_penalty * (1 + mixed)
    return replace(classes, rows=rows, owner=owner, offset=offset if offset.any() else None)


def _different_meaning(
    rivals: Sequence[str], rival_rows: np.ndarray, texts: Sequence[str], rows: np.ndarray
) -> list[int]:
    """Indices of the rivals that mean something else than all requested names.

    In encoders such as CLIP, the embeddings of all texts share a large component. It is removed before they are
    compared, so that one limit is meaningful for all encoders.
    """
    mean = rival_rows.mean(0)
    nearest = (_normalize(rival_rows - mean) @ _normalize(rows - mean).T).max(1).tolist() if texts else []
    return [
        index
        for index, rival in enumerate(rivals)
        if not texts or (nearest[index] < SAME_MEANING and not any(names_the_same(rival, text) for text in texts))
    ]


def _embed_cached(
    texts: Sequence[str],
    templates: Sequence[str],
    encoder: TextEncoder,
    cache: EmbeddingCache | None,
    progress: bool,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """The embedding of each text, (C,) float32 of unit length; what the cache lacks is embedded and stored."""
    table: dict[str, np.ndarray] = {}
    if cache is not None:
        table = cache.load(encoder.identity, templates, texts, encoder.width)
    # Sorted, so that the texts that share a batch, and with it the last bits of a row, do not depend on their order.
    missing = sorted(set(texts) - table.keys(), key=lambda text: (len(text), text))
    step = max(_MIN_NAMES_PER_STEP, batch_size // len(templates))
    chunks: Iterable[list[str]] = [missing[start : start + step] for start in range(0, len(missing), step)]
    if progress and len(missing) * len(templates) > _SENTENCES_WITHOUT_PROGRESS:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)  # a program may read stdout
        chunks = track(chunks, f"embedding {len(missing)} names", total=len(chunks), console=console)  # type: ignore[arg-type]
    for chunk in chunks:
        rows = dict(zip(chunk, embed_texts(chunk, templates, encoder, batch_size), strict=True))
        table |= rows
        if cache is not None:
            cache.store(encoder.identity, templates, rows)
    return table


def embed_texts(
    texts: Sequence[str], templates: Sequence[str], encoder: TextEncoder, batch_size: int = 256
) -> np.ndarray:
    """One embedding per text: the normalised mean of its normalised embeddings in each template (docs/method.md §4).

    Args:
        texts: n texts.
        templates: sentences with ``{}``.
        encoder: the text encoder.
        batch_size: sentences encoded at once.

    Returns:
        (n, C) float32 of unit length.
    """
    sentences = [fill(template, text) for text in texts for template in templates]
    starts = range(0, len(sentences), batch_size)
    parts = [to_float32(encoder.embed(sentences[start : start + batch_size])) for start in starts]
    embeddings = np.concatenate(parts) if parts else np.zeros((0, encoder.width), np.float32)
    return average_templates(embeddings.reshape(len(texts), len(templates), -1))


def average_templates(embeddings: np.ndarray) -> np.ndarray:
    """(n, templates, C) -> (n, C) of unit length: normalise, average, normalise again (docs/method.md §4)."""
    return _normalize(_normalize(embeddings).mean(-2))


def _normalize(rows: np.ndarray) -> np.ndarray:
    """Vectors (..., C) float32 divided by their length; a zero vector stays zero."""
    return rows / np.maximum(np.sqrt(np.square(rows).sum(-1, keepdims=True)), np.float32(1e-12))


def _warn_if_cut(texts: Sequence[str], templates: Sequence[str], encoder: TextEncoder) -> None:
    tokens = {template: encoder.count_tokens(fill(template, "")) for template in templates}
    longest = max(templates, key=lambda template: tokens[template])
    for text in texts:
        # A token is at least one byte, and case folding turns a letter into at most three. For nearly all names this
        # bound shows, without running the tokenizer, that they are short enough.
        if tokens[longest] + len(text.encode()) * (1 if text.isascii() else 3) <= encoder.context_length:
            continue
        if (needed := encoder.count_tokens(fill(longest, text))) > encoder.context_length:
            warnings.warn(
                f"the name {shorten(text)!r} takes {needed} tokens including its template, but the text encoder reads "
                f"only {encoder.context_length}: its end is cut off and has no effect. Shorten the name",
                VocabularyWarning,
                stacklevel=3,
            )


def _wordless(vocabulary: Vocabulary) -> set[int]:
    """Indices of the names with examples, which need no word that the encoder reads; K for the background."""
    if vocabulary.bank is None or vocabulary.bank_weight == 0:
        return set()
    columns = vocabulary.bank.columns(vocabulary)
    named = [not name.startswith("-") for name in vocabulary.bank.names]
    return set(columns[named].tolist()) - {-1}


def _readable(entries: list[tuple[str, int]], encoder: TextEncoder, wordless: Collection[int]) -> list[tuple[str, int]]:
    """The texts, with their owners, of which the encoder reads something; a warning about those that it reads in part.

    Raises:
        VocabularyError: the encoder reads no letter of any text of a name.
    """
    unread_of = getattr(encoder, "unread", None)  # encoders that read everything need not have it
    if unread_of is None:
        return entries
    unread = {text: letters for text, _ in entries if (letters := unread_of(text))}
    if not unread:
        return entries
    nothing_read = {text for text in unread if not encoder.count_tokens(text)}
    kept = [(text, index) for text, index in entries if text not in nothing_read]
    if lost := sorted({index for _, index in entries} - {index for _, index in kept} - {*wordless}):
        texts = [text for text, index in entries if index == lost[0]]
        more = f" (and nothing of {len(lost) - 1} more names)" if len(lost) > 1 else ""
        raise VocabularyError(
            f"this model's text encoder reads nothing of {shorten('|'.join(texts))!r}{more}: it knows Latin letters "
            "and digits only. Use English words, examples (--bank), or a CLIP model"
        )
    by_example = {text for text, index in entries if index in wordless}
    unread = {text: letters for text, letters in unread.items() if text not in by_example}
    if not unread:
        return kept
    first, letters = next(iter(unread.items()))
    more = f" (and not all of {len(unread) - 1} more names)" if len(unread) > 1 else ""
    warnings.warn(
        f"this model's text encoder does not read {shorten(letters)!r} in the name {shorten(first)!r}{more}: these "
        "letters have no effect. Use English words",
        VocabularyWarning,
        stacklevel=5,
    )
    return kept


def _members(
    entries: list[tuple[str, int]], groups: Mapping[str, Sequence[str]], encoder: TextEncoder
) -> list[tuple[str, int]]:
    """The names that requested words such as "animal" sum up, each once, with the owner of the narrowest word."""
    used = {text.casefold() for text, _ in entries}
    asked = []
    for text, index in entries:
        word = encoder.head(text) if isinstance(encoder, WordReader) else text.casefold()
        if word in groups:
            asked.append((groups[word], index))
    members = []
    for names, index in sorted(asked, key=lambda entry: len(entry[0])):
        members += [(name, index) for name in names if name not in used]
        used.update(names)
    return members


def _warn_if_several_mean_everything_else(vocabulary: Vocabulary) -> None:
    names = [texts for texts in vocabulary.synonyms if any(map(means_everything_else, texts))]
    if len(names) > 1:
        warnings.warn(
            f"{shorten(names[0][0])!r} and {shorten(names[1][0])!r} both mean everything else: the first in the list "
            "gets all of its pixels. Remove the others",
            VocabularyWarning,
            stacklevel=5,
        )


def _warn_if_alike(texts: Sequence[str], rows: np.ndarray, owner: Sequence[int]) -> None:
    first_with: dict[bytes, int] = {}
    alike = []
    for place, row in enumerate(rows):
        first = first_with.setdefault(row.tobytes(), place)
        if owner[first] != owner[place]:
            alike.append((first, place))
    if alike:
        first_name, second_name = (shorten(texts[place]) for place in alike[0])
        more = f" (and {len(alike) - 1} more pairs)" if len(alike) > 1 else ""
        warnings.warn(
            f"the text encoder gives {first_name!r} and {second_name!r} the same embedding{more}, so that the first in "
            "the list always wins. Use words that the encoder can distinguish",
            VocabularyWarning,
            stacklevel=3,
        )
