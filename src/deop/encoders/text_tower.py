"""What the text encoders of CLIP, SigLIP and TIPSv2 share: a tower of transformers, its tokenizer, its identity."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from deop.config import from_json
from deop.errors import CheckpointError
from deop.files import sha256
from deop.networks.pretrained import load_tokenizer
from deop.networks.state_hash import StateHash

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model")
"""Files that tokenizers are read from: those of CLIP, MetaCLIP 2, TIPS and SigLIP have one of them."""


class TextTower(nn.Module):
    """Base class of text encoders; a subclass defines ``kind``, ``config_type``, ``build_tower``, ``width``, ``embed``.

    Args:
        config: sizes, an instance of ``config_type``; the weights are random until they are loaded.
        tokenizer: from ``read_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type]

    def __init__(self, config: Any, tokenizer: Any = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.tower = self.build_tower(config)
        self._hash = StateHash()

    @staticmethod
    def build_tower(config: Any) -> Any:
        """The module of transformers, with random weights."""
        raise NotImplementedError

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text, counted as in ``count_tokens``."""
        return self.config.context

    @property
    def uses_templates(self) -> bool:
        """Whether names are inserted into sentence templates."""
        return True

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, including start and end tokens if there are any; may exceed ``context_length``."""
        return len(self._tokenize([text])[0])

    @property
    def identity(self) -> str:
        """Hash of everything that embeddings depend on: weights, their dtype, configuration and tokenizer."""
        return self._hash.digest(
            self.state_dict(), key=(self.config, id(self.tokenizer)), prefix=self._hashed_settings()
        )

    def _hashed_settings(self) -> Iterator[bytes]:
        yield self.kind.encode() + json.dumps(asdict(self.config), sort_keys=True).encode()
        if hasattr(self.tokenizer, "backend_tokenizer"):
            yield self.tokenizer.backend_tokenizer.to_str().encode()
        elif self.tokenizer is not None:  # SentencePiece
            yield sha256(Path(self.tokenizer.vocab_file)).encode()

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: str | Path | None = None) -> Self:
        """Create an encoder with random weights from the values of ``config_dict``.

        Args:
            values: the configuration.
            folder: where the tokenizer is, if the model has one.

        Raises:
            CheckpointError: an unknown entry or value, or a damaged tokenizer.
        """
        config: Any = from_json(cls.config_type, values, "the text encoder")
        has_tokenizer = folder is not None and Path(folder, "tokenizer_config.json").is_file()
        return cls(config, read_tokenizer(folder) if folder is not None and has_tokenizer else None).eval()

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write the files of the tokenizer, if there is one, into a folder; ``from_config`` reads them."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids as the tokenizer gives them, neither cut nor padded."""
        if self.tokenizer is None:
            raise CheckpointError(
                "this text encoder has no tokenizer: load it from a folder with a tokenizer (tokenizer.json, ...)"
            )
        # verbose=False: otherwise the tokenizer warns about long texts without naming them.
        return self.tokenizer(list(texts), verbose=False)["input_ids"]


def read_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer of a local folder with transformers.

    Raises:
        CheckpointError: the folder has no tokenizer, or a damaged one; or the library that it needs is not installed.
    """
    if not any((Path(folder) / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"no tokenizer in {folder}: expected tokenizer.json, or vocab.json and merges.txt, or SentencePiece's "
            "spiece.model or tokenizer.model"
        )
    if not any((Path(folder) / name).is_file() for name in TOKENIZER_FILES[:2]) and find_spec("sentencepiece") is None:
        raise CheckpointError(
            f"the tokenizer in {folder} needs the packages sentencepiece and protobuf: pip install sentencepiece "
            "protobuf"
        )
    try:
        return load_tokenizer(Path(folder))
    # For damaged files the tokenizers library raises many types of errors, including bare Exception.
    except Exception as error:
        raise CheckpointError(f"cannot read the tokenizer in {folder}: {error}") from error
