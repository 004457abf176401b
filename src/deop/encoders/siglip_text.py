"""The text encoder of SigLIP and SigLIP 2: transformers' modules and tokenizer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.blocks import ACTIVATIONS
from deop.encoders.siglip_keys import read_siglip_text_config, text_from_transformers
from deop.errors import CheckpointError
from deop.files import sha256
from deop.networks.loading import load_strictly, read_weights
from deop.networks.pretrained import load_tokenizer
from deop.networks.state_hash import StateHash


@dataclass(frozen=True)
class SiglipTextConfig:
    """Sizes of a text encoder. The defaults are those of SigLIP ViT-B/16.

    Attributes:
        tokens: rows of the token table.
        width: channels of the residual stream.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        hidden: channels inside the MLP.
        context: number of tokens of every text; shorter ones are padded, and attend to the padding.
        output: channels of the joint space.
        activation: a key of ``blocks.ACTIVATIONS``.
        norm_eps: epsilon of the layer norms.

    Raises:
        CheckpointError: an unknown activation, or heads that do not divide the width.
    """

    tokens: int = 32000
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 64
    output: int = 768
    activation: str = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} of the text encoder: choose one of {', '.join(ACTIVATIONS)}"
            )
        if self.width % self.heads:
            raise CheckpointError(
                f"the width {self.width} of the text encoder is not divisible by its {self.heads} heads"
            )


class SiglipText(nn.Module):
    """SigLIP's text encoder with its tokenizer.

    Args:
        config: sizes; the weights are random until they are loaded.
        tokenizer: from ``read_siglip_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind = "siglip"
    uses_templates = True
    """Whether names are inserted into sentence templates."""

    def __init__(self, config: SiglipTextConfig, tokenizer: Any = None) -> None:
        from transformers import SiglipTextConfig as TheirConfig
        from transformers import SiglipTextModel

        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.tower = SiglipTextModel(
            TheirConfig(
                vocab_size=config.tokens,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                projection_size=config.output,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context,
                hidden_act=config.activation,
                layer_norm_eps=config.norm_eps,
                # These ids need not be rows of the token table.
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
        self._hash = StateHash()

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text, counted as in ``count_tokens``."""
        return self.config.context

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, in lower case and padded to the context length, as in training.

        Args:
            texts: n texts. A text that is longer than the context is cut at its end.

        Returns:
            (n, C) float32, not normalised, on the encoder's device. Differentiable.

        Raises:
            CheckpointError: the encoder has no tokenizer.
        """
        table = self.tower.embeddings.token_embedding.weight
        if not texts:
            return table.new_zeros(0, self.width, dtype=torch.float32)
        limit, pad = self.context_length, self._need_tokenizer().pad_token_id or 0
        rows = [row if len(row) <= limit else row[: limit - 1] + row[-1:] for row in self._tokenize(texts)]
        ids = torch.tensor([row + [pad] * (limit - len(row)) for row in rows], device=table.device)
        return self.encode_tokens(ids)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Encode token ids (n, context) int, padding included: (n, C) float32, not normalised."""
        return self.tower(input_ids=ids).pooler_output.float()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text including the end token; may exceed ``context_length``."""
        return len(self._tokenize([text])[0])

    @property
    def identity(self) -> str:
        """Hash of everything that embeddings depend on: weights, their dtype, configuration and tokenizer."""
        return self._hash.digest(
            self.state_dict(), key=(self.config, id(self.tokenizer)), prefix=self._hashed_settings()
        )

    def _hashed_settings(self) -> Iterator[bytes]:
        yield b"siglip" + json.dumps(asdict(self.config), sort_keys=True).encode()
        if hasattr(self.tokenizer, "backend_tokenizer"):
            yield self.tokenizer.backend_tokenizer.to_str().encode()
        elif self.tokenizer is not None:  # SentencePiece
            yield sha256(Path(self.tokenizer.vocab_file)).encode()

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: str | Path | None = None) -> "SiglipText":
        """Create an encoder with random weights from the values of ``config_dict``.

        Args:
            values: the configuration.
            folder: where the tokenizer is, if the model has one.

        Raises:
            CheckpointError: an unknown entry or value, or a damaged tokenizer.
        """
        config = from_json(SiglipTextConfig, values, "the text encoder")
        has_tokenizer = folder is not None and Path(folder, "tokenizer_config.json").is_file()
        return cls(config, read_siglip_tokenizer(folder) if folder is not None and has_tokenizer else None).eval()

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write the files of the tokenizer, if there is one, into a folder; ``from_config`` reads them."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "SiglipText":
        """Load encoder and tokenizer from a folder in the layout of transformers' SigLIP or SigLIP 2.

        Raises:
            CheckpointError: another layout, no tokenizer, or weights that are missing, unexpected, damaged or pickled.
        """
        text = cls(SiglipTextConfig(**read_siglip_text_config(Path(folder))), read_siglip_tokenizer(folder))
        load_strictly(text.tower, text_from_transformers(read_weights(folder)), f"the text encoder in {folder}")
        return text.eval()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids including the end token, neither cut nor padded."""
        # SigLIP 2 was trained on lower case, and the tokenizers of its fixed-resolution folders keep capitals.
        lowered = [text.lower() for text in texts]
        return self._need_tokenizer()(lowered, verbose=False)["input_ids"]

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise CheckpointError(
                "this text encoder has no tokenizer: load it from a folder with tokenizer.json or spiece.model"
            )
        return self.tokenizer


def read_siglip_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer of a local folder with transformers.

    Raises:
        CheckpointError: the folder has no tokenizer, or a damaged one; or the library that it needs is not installed.
    """
    if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "spiece.model", "tokenizer.model")):
        raise CheckpointError(f"no tokenizer in {folder}: expected tokenizer.json (SigLIP 2) or spiece.model (SigLIP)")
    try:
        return load_tokenizer(Path(folder))
    except ImportError as error:
        raise CheckpointError(
            f"the tokenizer in {folder} needs the packages sentencepiece and protobuf: pip install sentencepiece "
            "protobuf"
        ) from error
    # For damaged files the libraries raise errors of many types, including bare Exception.
    except Exception as error:
        raise CheckpointError(f"cannot read the tokenizer in {folder}: {error}") from error
