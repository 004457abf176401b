"""The text encoder of CLIP and MetaCLIP 2: transformers' modules and tokenizer, optionally with a learned prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.encoders import text_sizes
from deop.encoders.blocks import check_sizes
from deop.encoders.clip_keys import prompt_from_original, read_text_config, text_from_openai
from deop.encoders.learned_prompt import LearnedPrompt
from deop.encoders.text_tower import TextTower, read_tokenizer
from deop.errors import CheckpointError
from deop.networks.loading import load_strictly, read_weights

ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text encoder. The defaults are those of OpenAI's CLIP ViT-B/16.

    Attributes:
        tokens: rows of the token table.
        width: channels of the residual stream.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        hidden: channels inside the MLP.
        context: maximum number of tokens of a text, including start and end.
        output: channels of the joint space.
        activation: "quick_gelu" or "gelu".
        norm_eps: epsilon of the layer norms.
        end_token: the id whose first position is the output of a text; None: the largest id of a row (OpenAI's rule).
        prompt: vectors before and after the name in the learned prompt; None: no prompt.

    Raises:
        CheckpointError: an unknown activation, or heads that do not divide the width.
    """

    tokens: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int = 2048
    context: int = 77
    output: int = 512
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    end_token: int | None = None
    prompt: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None:
            before, after = self.prompt
            object.__setattr__(self, "prompt", (before, after))
        check_sizes("text", self.activation, ACTIVATIONS, self.width, self.heads)


class CLIPText(TextTower):
    """CLIP's text encoder with its tokenizer.

    Args:
        config: sizes; the weights are random until they are loaded.
        tokenizer: from ``read_tokenizer``; None: token ids can be encoded, texts cannot.
    """

    kind = "clip"
    config_type = TextConfig

    def __init__(self, config: TextConfig, tokenizer: Any = None) -> None:
        super().__init__(config, tokenizer)
        self.prompt = None if config.prompt is None else LearnedPrompt(config.width, *config.prompt)

    @staticmethod
    def build_tower(config: TextConfig) -> Any:
        """The module of transformers, with random weights."""
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        return CLIPTextModelWithProjection(
            CLIPTextConfig(
                **text_sizes.to_transformers(config),
                projection_dim=config.output,
                # encode_tokens finds the end token; these ids need not be rows of the token table.
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    @property
    def uses_templates(self) -> bool:
        """Whether names are inserted into sentence templates; False with a learned prompt, which replaces them."""
        return self.prompt is None

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, each inside the learned prompt if there is one (docs/method.md §4).

        Args:
            texts: n texts. A text that is longer than the context is cut at its end.

        Returns:
            (n, C) float32, not normalised, on the encoder's device. Differentiable.

        Raises:
            CheckpointError: the encoder has no tokenizer, or that of another model.
        """
        if not texts:
            return self._table.weight.new_zeros(0, self.width, dtype=torch.float32)
        limit = self.context_length - (0 if self.prompt is None else self.prompt.overhead - 2)
        rows = [row[: limit - 1] + row[-1:] if len(row) > limit else row for row in self._tokenize(texts)]
        if self.prompt is not None:
            return self.encode_embeddings(*self.prompt([self._table(self._ids(row[1:-1])) for row in rows]))
        longest = max(map(len, rows))
        # Padded with the end token, as in transformers. Attention is causal, so padding has no effect on the output.
        return self.encode_tokens(self._ids([row + row[-1:] * (longest - len(row)) for row in rows]))

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Encode token ids (docs/method.md §4).

        Args:
            ids: (n, T) int, T up to the context length, including start and end tokens. Ids after the end token have
                no effect (OpenAI pads with 0, transformers with the end token).

        Returns:
            (n, C) float32, not normalised.

        Raises:
            CheckpointError: a row without the end token.
        """
        ids = ids.long()
        if self.config.end_token is None:
            end = ids.argmax(-1)
        else:
            is_end = ids == self.config.end_token
            if not is_end.any(-1).all():
                raise CheckpointError(
                    f"a text has no end token {self.config.end_token}: use the tokenizer of this text encoder"
                )
            end = is_end.int().argmax(-1)
        return self.encode_embeddings(self._table(ids[:, : int(end.max()) + 1]), end)

    def encode_embeddings(self, embeddings: Tensor, end: Tensor) -> Tensor:
        """Encode input embeddings: rows of the token table, or vectors in their place.

        Args:
            embeddings: (n, T, width) float, without position embeddings.
            end: (n,) int64, the position of the end token, whose state is the output.

        Returns:
            (n, C) float32, not normalised: projection(norm(transformer(embeddings + positions))[end]).
        """
        model = self.tower.text_model
        x = model.embeddings(inputs_embeds=embeddings.to(self._table.weight.dtype))
        length = x.shape[1]
        causal = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        x = model.encoder(inputs_embeds=x, attention_mask=causal[None, None]).last_hidden_state
        x = model.final_layer_norm(x[torch.arange(len(x), device=x.device), end])
        return self.tower.text_projection(x).float()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text including start, end and learned prompt; may exceed ``context_length``."""
        return super().count_tokens(text) + (0 if self.prompt is None else self.prompt.overhead - 2)

    def add_prompt(self, prefix: int = 16, suffix: int = 0) -> LearnedPrompt:
        """Add a new learned prompt, initialised with normal * 0.02 (docs/method.md §4); it replaces templates.

        Args:
            prefix: vectors before the name.
            suffix: vectors after the name.

        Raises:
            CheckpointError: the encoder has no tokenizer, which is needed for the start, "." and end tokens.
        """
        start, *_, dot, end = self._tokenize(["."])[0]  # SentencePiece can have a token for the space before it
        weight = self._table.weight.detach()
        prompt = LearnedPrompt(self.config.width, prefix, suffix).to(weight)
        for name, token in (("start", start), ("dot", dot), ("end", end), ("pad", 0)):
            getattr(prompt, name).copy_(weight[[token]])
        self.prompt = prompt
        self.config = replace(self.config, prompt=(prefix, suffix))
        return prompt

    @classmethod
    def from_folder(cls, folder: str | Path) -> "CLIPText":
        """Load encoder and tokenizer from a folder in the layout of transformers' CLIP.

        Raises:
            CheckpointError: another layout, no tokenizer, or weights that are missing, unexpected, damaged or pickled.
        """
        text = cls(TextConfig(**read_text_config(Path(folder))), read_tokenizer(folder))
        state = {
            key: value
            for key, value in read_weights(folder).items()
            if key.startswith(("text_model.", "text_projection.")) and not key.endswith("position_ids")
        }
        load_strictly(text.tower, state, f"the text encoder in {folder}")
        return text.eval()

    @classmethod
    def from_openai(
        cls,
        state: dict[str, Tensor],
        prompt: dict[str, Tensor] | None = None,
        *,
        heads: int | None = None,
        tokenizer: str | Path | None = None,
        **options: Any,
    ) -> "CLIPText":
        """Load the encoder from a state dict in OpenAI's layout, which the original's checkpoints use too.

        Args:
            state: keys of OpenAI's files without those below ``visual.``: ``token_embedding.weight``, ... In the
                original's checkpoints they are below ``clip_adapter.clip_model.``. Sizes are read from the shapes.
            prompt: the learned prompt of the original, keys below ``prompt_learner.``: ``prefix_prompt``, ...
            heads: attention heads; None: those of the published CLIP of this width.
            tokenizer: a folder with CLIP's tokenizer; None: token ids can be encoded, texts cannot.
            options: further fields of ``TextConfig``.

        Raises:
            CheckpointError: listing missing and unexpected keys.
        """
        settings, renamed = text_from_openai(state, heads)
        shape = None
        if prompt is not None:
            prompt = prompt_from_original(prompt)
            shape = (len(prompt["prefix"]), len(prompt["suffix"]))
        config = TextConfig(**settings, prompt=shape, **options)
        text = cls(config, None if tokenizer is None else read_tokenizer(tokenizer))
        load_strictly(text.tower, renamed, "the text encoder")
        if text.prompt is not None and prompt is not None:
            load_strictly(text.prompt, prompt, "the learned prompt")
        return text.eval()

    @property
    def _table(self) -> nn.Embedding:
        return self.tower.text_model.embeddings.token_embedding

    def _ids(self, rows: list[Any]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._table.weight.device)
