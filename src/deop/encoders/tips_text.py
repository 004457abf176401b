"""The text encoder of TIPSv2: transformers' modules and tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.encoders import text_sizes
from deop.encoders.blocks import check_sizes
from deop.encoders.text_tower import TextTower, read_tokenizer
from deop.encoders.tips_keys import read_tips_text_config, text_from_transformers
from deop.errors import CheckpointError
from deop.networks.loading import load_strictly, read_weights

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
        check_sizes("text", self.activation, ACTIVATIONS, self.width, self.heads)


class TipsText(TextTower):
    """TIPSv2's text encoder with its tokenizer. A text is the mean of its tokens; there is no start or end token.

    Args:
        config: sizes; the weights are random until they are loaded.
        tokenizer: from ``read_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind = "tips"
    config_type = TipsTextConfig

    @staticmethod
    def build_tower(config: TipsTextConfig) -> Any:
        """The module of transformers, with random weights."""
        try:
            from transformers import Tipsv2TextConfig, Tipsv2TextModel
        except ImportError as error:
            raise CheckpointError("TIPSv2 needs transformers 5.14 or later: update it") from error

        return Tipsv2TextModel(
            Tipsv2TextConfig(
                **text_sizes.to_transformers(config),
                scale_sqrt_depth=config.scaled,
                pooling_epsilon=config.pooling_eps,
                pad_token_id=None,
            )
        )

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.width

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

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TipsText":
        """Load encoder and tokenizer from a folder in the layout of transformers' TIPSv2, or in that of its authors.

        Raises:
            CheckpointError: another layout, no tokenizer, or weights that are missing, unexpected, damaged or pickled.
        """
        text = cls(TipsTextConfig(**read_tips_text_config(Path(folder))), read_tokenizer(folder))
        load_strictly(text.tower, text_from_transformers(read_weights(folder)), f"the text encoder in {folder}")
        return text.eval()
