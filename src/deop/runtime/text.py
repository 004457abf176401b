"""The text encoders of exported models: a word table, a text tower with its tokenizer, or a table of names."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import CheckpointError, MissingDependencyError, VocabularyError
from deop.files import json_of
from deop.runtime.config import OnnxParts
from deop.runtime.files import read_checked
from deop.tensors import TensorFile
from deop.text.vocabulary import shorten
from deop.text.words import WordTable

if TYPE_CHECKING:
    from deop.runtime.session import TextSession

ROWS = "text.rows"
"""Key of the word table; its scales have the key ``ROWS + "::scale"`` if its rows are int8."""

NAME_ROWS = "rows"
"""Key of the rows of a table of names."""

NAME_TEXTS = "texts"
"""Entry of the metadata of its file: the texts of the rows, as a JSON list."""

_MISSING_SHOWN = 5


def read_text_encoder(folder: Path, parts: OnnxParts, open_session: "Callable[[], TextSession]") -> Any:
    """The text encoder of an exported folder, whose files have been checked.

    Args:
        folder: the folder.
        parts: the section "onnx" of its config.
        open_session: called for the session of a text tower, when the first text is embedded.

    Raises:
        CheckpointError: files that do not fit the config.
    """
    text = parts.text
    encoder: WordTable | TextTower | NameTable
    if text.kind == "words":
        file = TensorFile(folder / text.file)
        scales = file[f"{ROWS}::scale"] if f"{ROWS}::scale" in file.tensors else None
        encoder = WordTable.from_folder(folder, file[ROWS], scales)
    elif text.kind == "clip":
        tokenizer = read_checked(folder, text.tokenizer, parts.files)
        encoder = TextTower(tokenizer, parts, open_session)
    else:
        encoder = NameTable(folder / text.file)
    if encoder.width != text.width:
        raise CheckpointError(
            f"the text encoder in {folder} has {encoder.width} channels, and the config says {text.width}: fetch or "
            "export the folder again"
        )
    return encoder


class TextTower:
    """A CLIP text tower as a graph, with its tokenizer.

    Args:
        tokenizer: content of ``tokenizer.json``.
        parts: the section "onnx" of the config.
        open_session: opens the graph.
    """

    is_table = False

    def __init__(self, tokenizer: bytes, parts: OnnxParts, open_session: "Callable[[], TextSession]") -> None:
        self.uses_templates = parts.text.uses_templates
        self.context_length = parts.text.context_length
        self.width = parts.text.width
        self.identity = parts.text.identity
        self._file, self._content = parts.text.tokenizer, tokenizer
        self._open_session = open_session

    @cached_property
    def _session(self) -> "TextSession":
        session = self._open_session()
        if session.width != self.width:
            raise CheckpointError(f"{session.path} is the text tower of another model: export the model again")
        return session

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependencyError(
                'this model reads names with the library tokenizers: pip install tokenizers (part of "deop[torch]")'
            ) from error
        try:
            tokenizer = Tokenizer.from_str(self._content.decode())
        except Exception as error:  # the library raises bare Exceptions
            raise CheckpointError(f"cannot read {self._file}: {error}. Export the model again") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, including start and end; may exceed ``context_length``."""
        return len(self._tokenizer.encode(text).ids)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed n texts; the end of a text that is longer than the context is cut off.

        Returns:
            (n, C) float32, not normalised.
        """
        if not texts:
            return np.zeros((0, self.width), np.float32)
        limit = self.context_length
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        rows = [row[: limit - 1] + row[-1:] if len(row) > limit else row for row in rows]
        length = self._session.length or max(map(len, rows))
        # Padded with the end token. Attention is causal, so padding has no effect on the output.
        tokens = np.array([row + row[-1:] * (length - len(row)) for row in rows], np.int64)
        return self._session.run(tokens)


class NameTable:
    """Embeddings of names that were computed when the model was exported.

    Args:
        path: a safetensors file with ``NAME_ROWS`` (names, C) float32 and, in its metadata, ``NAME_TEXTS``.

    Raises:
        CheckpointError: another kind of file.
    """

    is_table = True
    uses_templates = False
    context_length = 1 << 20
    """Maximum number of tokens of a text: a name in the table is never cut off."""

    def __init__(self, path: Path) -> None:
        file = TensorFile(path)
        self.rows = file[NAME_ROWS]
        try:
            texts = json_of(file.metadata[NAME_TEXTS])
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} has no list of names in its metadata: export the model again") from error
        if not isinstance(texts, list) or self.rows.ndim != 2 or len(texts) != len(self.rows):
            raise CheckpointError(f"{path} does not have one row for each name: export the model again")
        self.index = {str(text): row for row, text in enumerate(texts)}
        self._folded = {text.casefold(): row for text, row in reversed(self.index.items())}
        self.path = path

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.rows.shape[1]

    @property
    def identity(self) -> str:
        """Not used: a table is neither cached nor hashed."""
        return "names"

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text: 1, since names are looked up as a whole."""
        return 1

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Look up n names: (n, C) float32.

        Raises:
            VocabularyError: names that are not in the table.
        """
        rows = [self.index.get(text, self._folded.get(text.casefold())) for text in texts]
        if missing := [text for text, row in zip(texts, rows, strict=True) if row is None]:
            more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
            shown = ", ".join(repr(shorten(text)) for text in missing[:_MISSING_SHOWN])
            raise VocabularyError(
                f"this model was exported with {len(self.index)} names, and {shown}{more} are not among them: export "
                "it again with these names (`deop export MODEL DIR --classes-file FILE`), or with its text encoder"
            )
        return np.asarray(self.rows[rows], np.float32)  # type: ignore[index]
