"""Vocabularies in the joint space of images and text: one embedding per synonym, and how to offset its scores."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deop.protocols import TextEncoder
from deop.text.calibration import Calibration
from deop.text.embedding_cache import EmbeddingCache
from deop.text.templates import NONE, fill
from deop.text.vocabulary import Vocabulary, VocabularyWarning, shorten

_SENTENCES_WITHOUT_PROGRESS = 200
_MIN_NAMES_PER_STEP = 16  # embedded between two writes to the cache


@dataclass(frozen=True)
class Classes:
    """A vocabulary in the joint space.

    Attributes:
        rows: (M, C) float32 of unit length: every synonym of every name, then the background and the rivals.
        owner: (M,) int64 in [0, K]: the name that a row belongs to; K for background and rivals.
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
        """The same classes on another device."""
        offset = None if self.offset is None else self.offset.to(device)
        return Classes(self.rows.to(device), self.owner.to(device), self.names, offset)


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

    Args:
        vocabulary: the class names.
        encoder: the text encoder.
        calibration: rivals and seen names of the model; None: the embeddings alone. The rivals are not used if the
            vocabulary has a background.
        cache: the cache of embeddings on disk, or None.
        progress: show a progress bar on stderr when more than 200 sentences must be encoded.
        batch_size: sentences encoded at once.

    Returns:
        The classes, on the CPU. The order of the names affects nothing but the order of their rows. The tensors can
        take part in a backward pass, also when this is called in inference mode.

    Warns:
        VocabularyWarning: a name is longer than the encoder's context, so its end has no effect; or two names have
            exactly the same embedding, so that only their order decides between them.
    """
    templates = vocabulary.templates if encoder.uses_templates else NONE
    texts = vocabulary.texts
    _warn_if_cut(texts, templates, encoder)
    rivals = () if calibration is None or vocabulary.background else calibration.rivals
    with torch.inference_mode(False), torch.no_grad():
        table = _embed_cached((*texts, *rivals), templates, encoder, cache, progress, batch_size)
        owner = [index for index, synonyms in enumerate(vocabulary.synonyms) for _ in synonyms]
        owner += [len(vocabulary.synonyms)] * len(vocabulary.background)
        rows = np.stack([table[text] for text in texts])
        _warn_if_alike(texts, rows, owner)
        classes = Classes(torch.from_numpy(rows), torch.tensor(owner), vocabulary.names)
        if calibration is None:
            return classes
        rival_rows = torch.from_numpy(np.stack([table[text] for text in rivals])) if rivals else None
        return calibrate_classes(classes, texts, calibration, rivals, rival_rows)


def calibrate_classes(
    classes: Classes,
    texts: Sequence[str],
    calibration: Calibration,
    rivals: Sequence[str] = (),
    rival_rows: Tensor | None = None,
) -> Classes:
    """Add rows for "none of these", and lower the rows of seen names if unseen names are requested too.

    Args:
        classes: the embeddings of the requested names.
        texts: the text of each of their M rows.
        calibration: calibration of the model.
        rivals: R names that stand for everything else.
        rival_rows: (R, C) float32 of unit length, their embeddings; None without rivals.

    Returns:
        The classes with an offset, and with the rivals that differ from all requested names and belong to no name.
    """
    rows, owner, count = classes.rows, classes.owner, len(classes.rows)
    texts = list(texts)
    if rival_rows is not None:
        nearest = (rival_rows @ rows.T).amax(1) if count else rival_rows.new_zeros(len(rival_rows))
        far = (nearest < calibration.rival_similarity).nonzero()[:, 0]
        rows = torch.cat([rows, rival_rows[far]])
        owner = torch.cat([owner, owner.new_full((len(far),), len(classes.names))])
        texts += [rivals[index] for index in far.tolist()]
    trained = {name.casefold() for name in calibration.trained_names}
    seen = [text.casefold() in trained for text in texts]
    # A name counts as seen if any of its synonyms does: a synonym that training lacked does not make the name new.
    owners = owner.tolist()
    names = range(len(classes.names))  # rows with another owner belong to no name
    seen_names = {index for index, is_seen in zip(owners[:count], seen, strict=False) if is_seen and index in names}
    seen = [is_seen or index in seen_names for index, is_seen in zip(owners, seen, strict=True)]
    # If every name was seen, or no row at all, the offset would have no effect.
    mixed = any(seen) and not all(seen[:count])
    if not mixed or not calibration.seen_penalty:
        return Classes(rows, owner, classes.names, classes.offset)
    return Classes(rows, owner, classes.names, -calibration.seen_penalty * torch.tensor(seen).to(rows))


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
        rows = dict(zip(chunk, embed_texts(chunk, templates, encoder, batch_size).numpy(), strict=True))
        table |= rows
        if cache is not None:
            cache.store(encoder.identity, templates, rows)
    return table


@torch.no_grad()
def embed_texts(texts: Sequence[str], templates: Sequence[str], encoder: TextEncoder, batch_size: int = 256) -> Tensor:
    """One embedding per text: the normalised mean of its normalised embeddings in each template (docs/method.md §4).

    Args:
        texts: n texts.
        templates: sentences with ``{}``.
        encoder: the text encoder.
        batch_size: sentences encoded at once.

    Returns:
        (n, C) float32 of unit length, on the CPU.
    """
    sentences = [fill(template, text) for text in texts for template in templates]
    parts = [encoder.embed(sentences[start : start + batch_size]) for start in range(0, len(sentences), batch_size)]
    return average_templates(torch.cat(parts).unflatten(0, (len(texts), len(templates)))).cpu()


def average_templates(embeddings: Tensor) -> Tensor:
    """(n, templates, C) -> (n, C) of unit length: normalise, average, normalise again (docs/method.md §4)."""
    return _normalize(_normalize(embeddings).mean(-2))


def _normalize(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


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
