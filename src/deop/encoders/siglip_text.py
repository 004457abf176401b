"""The text encoder of SigLIP and SigLIP 2: transformers' modules and tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.encoders import text_sizes
from deop.encoders.blocks import ACTIVATIONS, check_sizes
from deop.encoders.siglip_keys import read_siglip_text_config, text_from_transformers
from deop.encoders.text_tower import TextTower, read_tokenizer
from deop.networks.loading import load_strictly, read_weights


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
        check_sizes("text", self.activation, ACTIVATIONS, self.width, self.heads)


class SiglipText(TextTower):
    """SigLIP's text encoder with its tokenizer.

    Args:
        config: sizes; the weights are random until they are loaded.
        tokenizer: from ``read_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind = "siglip"
    config_type = SiglipTextConfig

    @staticmethod
    def build_tower(config: SiglipTextConfig) -> Any:
        """The module of transformers, with random weights."""
        from transformers import SiglipTextConfig as TheirConfig
        from transformers import SiglipTextModel

        return SiglipTextModel(
            TheirConfig(
                **text_sizes.to_transformers(config),
                projection_size=config.output,
                # These ids need not be rows of the token table.
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

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
        rows, limit, pad = self._tokenize(texts), self.context_length, self.tokenizer.pad_token_id or 0
        rows = [row if len(row) <= limit else row[: limit - 1] + row[-1:] for row in rows]
        ids = torch.tensor([row + [pad] * (limit - len(row)) for row in rows], device=table.device)
        return self.encode_tokens(ids)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Encode token ids (n, context) int, padding included: (n, C) float32, not normalised."""
        return self.tower(input_ids=ids).pooler_output.float()

    @classmethod
    def from_folder(cls, folder: str | Path) -> "SiglipText":
        """Load encoder and tokenizer from a folder in the layout of transformers' SigLIP or SigLIP 2.

        Raises:
            CheckpointError: another layout, no tokenizer, or weights that are missing, unexpected, damaged or pickled.
        """
        text = cls(SiglipTextConfig(**read_siglip_text_config(Path(folder))), read_tokenizer(folder))
        load_strictly(text.tower, text_from_transformers(read_weights(folder)), f"the text encoder in {folder}")
        return text.eval()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        # SigLIP 2 was trained on lower case, and the tokenizers of its fixed-resolution folders keep capitals.
        return super()._tokenize([text.lower() for text in texts])
