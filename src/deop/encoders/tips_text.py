"""The text encoder of TIPSv2: transformers' modules and tokenizer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.clip_text import read_tokenizer
from deop.encoders.tips_keys import read_tips_text_config, text_from_transformers
from deop.errors import CheckpointError
from deop.networks.loading import load_strictly, read_weights
from deop.networks.state_hash import StateHash

ACTIVATIONS = ("relu", "gelu", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class TipsTextConfig:
    """Sizes of a text encoder. The defaults are those of TIPSv2 B/14.

    Attributes:
        tokens: rows of the token table.
        width: channels of the residual stream and of the joint space.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        hidden: channels inside the MLP.
        context: maximum number of tokens of a text.
        activation: "relu", "gelu" or "gelu_pytorch_tanh".
        norm_eps: epsilon of the layer norms.
        scaled: whether token embeddings are multiplied by sqrt(width).
        pooling_eps: added to the number of tokens over which the mean is taken.

    Raises:
        CheckpointError: an unknown activation, or heads that do not divide the width.
    """

    tokens: int = 32000
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 64
    activation: str = "relu"
    norm_eps: float = 1e-5
    scaled: bool = True
    pooling_eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} of the text encoder: choose one of {', '.join(ACTIVATIONS)}"
            )
        if self.width % self.heads:
            raise CheckpointError(
                f"the width {self.width} of the text encoder is not divisible by its {self.heads} heads"
            )


class TipsText(nn.Module):
    """TIPSv2's text encoder with its tokenizer. A text is the mean of its tokens; there is no start or end token.

    Args:
        config: sizes; the weights are random until they are loaded.
        tokenizer: from ``clip_text.read_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind = "tips"
    uses_templates = True
    """Whether names are inserted into sentence templates."""

    def __init__(self, config: TipsTextConfig, tokenizer: Any = None) -> None:
        try:
            from transformers import Tipsv2TextConfig, Tipsv2TextModel
        except ImportError as error:
            raise CheckpointError("TIPSv2 needs transformers 5.14 or later: update it") from error

        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.tower = Tipsv2TextModel(
            Tipsv2TextConfig(
                vocab_size=config.tokens,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context,
                hidden_act=config.activation,
                layer_norm_eps=config.norm_eps,
                scale_sqrt_depth=config.scaled,
                pooling_epsilon=config.pooling_eps,
                pad_token_id=None,
            )
        )
        self._hash = StateHash()

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.width

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a text, counted as in ``count_tokens``."""
        return self.config.context

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; the tokenizer converts them to lower case.

        Args:
            texts: n texts. A text that is longer than the context is cut at its end.

        Returns:
            (n, C) float32, not normalised, on the encoder's device; 0 for texts without tokens. Differentiable.

        Raises:
            CheckpointError: the encoder has no tokenizer.
        """
        table = self.tower.embeddings.token_embedding.weight
        if not texts:
            return table.new_zeros(0, self.width, dtype=torch.float32)
        rows = [row[: self.context_length] for row in self._tokenize(texts)]
        longest = max(1, *map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=table.device)
        lengths = torch.tensor([len(row) for row in rows], device=table.device)
        return self.encode_tokens(ids, torch.arange(longest, device=table.device) < lengths[:, None])

    def encode_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode token ids.

        Args:
            ids: (n, T) int, T up to the context length.
            mask: (n, T) bool, False for padding, which has no effect.

        Returns:
            (n, C) float32, not normalised.
        """
        pooled = self.tower(input_ids=ids, attention_mask=mask.long()).pooler_output.float()
        # A text without tokens attends to nothing, so that its result would depend on the attention kernel.
        return torch.where(mask.any(1, keepdim=True), pooled, 0.0)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; may exceed ``context_length``."""
        return len(self._tokenize([text])[0])

    @property
    def identity(self) -> str:
        """Hash of everything that embeddings depend on: weights, their dtype, configuration and tokenizer."""
        return self._hash.digest(
            self.state_dict(), key=(self.config, id(self.tokenizer)), prefix=self._hashed_settings()
        )

    def _hashed_settings(self) -> Iterator[bytes]:
        yield b"tips" + json.dumps(asdict(self.config), sort_keys=True).encode()
        if self.tokenizer is not None:
            yield self.tokenizer.backend_tokenizer.to_str().encode()

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: str | Path | None = None) -> "TipsText":
        """Create an encoder with random weights from the values of ``config_dict``.

        Args:
            values: the configuration.
            folder: where the tokenizer is, if the model has one.

        Raises:
            CheckpointError: an unknown entry or value, or a damaged tokenizer.
        """
        config = from_json(TipsTextConfig, values, "the text encoder")
        has_tokenizer = folder is not None and Path(folder, "tokenizer_config.json").is_file()
        return cls(config, read_tokenizer(folder) if folder is not None and has_tokenizer else None).eval()

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write the files of the tokenizer, if there is one, into a folder; ``from_config`` reads them."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TipsText":
        """Load encoder and tokenizer from a folder in the layout of transformers' TIPSv2, or in that of its authors.

        Raises:
            CheckpointError: another layout, no tokenizer, or weights that are missing, unexpected, damaged or pickled.
        """
        text = cls(TipsTextConfig(**read_tips_text_config(Path(folder))), read_tokenizer(folder))
        load_strictly(text.tower, text_from_transformers(read_weights(folder)), f"the text encoder in {folder}")
        return text.eval()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, neither cut nor padded."""
        if self.tokenizer is None:
            raise CheckpointError(
                "this text encoder has no tokenizer: load it from a folder with tokenizer.json or tokenizer.model"
            )
        return self.tokenizer(list(texts), verbose=False)["input_ids"]
