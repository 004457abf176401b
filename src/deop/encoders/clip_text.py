"""CLIP's text tower: transformers' modules and tokenizer, with a learned prompt where a model has one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.config import from_json
from deop.encoders.clip_keys import prompt_from_original, read_text_config, text_from_openai
from deop.encoders.learned_prompt import LearnedPrompt
from deop.errors import CheckpointError
from deop.networks.loading import load_strictly, read_weights

ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True)
class TextConfig:
    """The shape of a text tower. The defaults are those of OpenAI's CLIP ViT-B/16."""

    tokens: int = 49408  # rows of the token table
    width: int = 512  # channels of the residual stream
    layers: int = 12
    heads: int = 8
    hidden: int = 2048  # channels inside the MLP
    context: int = 77  # most tokens of a text, start and end included
    output: int = 512  # channels of the joint space
    activation: str = "quick_gelu"  # or "gelu"
    norm_eps: float = 1e-5
    end_token: int | None = None  # where a text is read off: its first end token; None: its largest id (OpenAI's rule)
    prompt: tuple[int, int] | None = None  # vectors before and after the name in the learned prompt; None: no prompt

    def __post_init__(self) -> None:
        if self.prompt is not None:
            before, after = self.prompt
            object.__setattr__(self, "prompt", (before, after))
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"unknown activation {self.activation!r} in the text tower: expected {' or '.join(ACTIVATIONS)}"
            )
        if self.width % self.heads:
            raise CheckpointError(f"{self.heads} heads do not divide the width {self.width} of the text tower")


class CLIPText(nn.Module):
    """CLIP's text tower with its tokenizer: texts into the joint space."""

    kind = "clip"

    def __init__(self, config: TextConfig, tokenizer: Any = None) -> None:
        """Random weights; ``tokenizer`` as ``read_tokenizer`` gives it, or None to encode ids only."""
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.tower = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=config.tokens,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                projection_dim=config.output,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context,
                hidden_act=config.activation,
                layer_norm_eps=config.norm_eps,
                # Where a text is read off is decided in encode_tokens; transformers' ids need not fit the table.
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
        self.prompt = None if config.prompt is None else LearnedPrompt(config.width, *config.prompt)
        self._identity: tuple[Any, str] = (None, "")

    @property
    def width(self) -> int:
        """Channels C of the joint space."""
        return self.config.output

    @property
    def context_length(self) -> int:
        """Most tokens that a text may have, counted as ``count_tokens`` does."""
        return self.config.context

    @property
    def uses_templates(self) -> bool:
        """Whether names are to be put into sentences: not where a learned prompt stands around them."""
        return self.prompt is None

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; around each goes the learned prompt where there is one.

        Args:
            texts: n texts. One that is longer than the context is cut at its end.

        Returns:
            (n, C) float32, not normalised, on the tower's device (METHOD section 4). Differentiable.

        Raises:
            CheckpointError: the tower has no tokenizer, or that of another model.
        """
        if not texts:
            return self._table.weight.new_zeros(0, self.width, dtype=torch.float32)
        room = self.context_length - (0 if self.prompt is None else self.prompt.overhead - 2)
        rows = [row[: room - 1] + row[-1:] if len(row) > room else row for row in self._tokenize(texts)]
        if self.prompt is not None:
            return self.encode_embeddings(*self.prompt([self._table(self._ids(row[1:-1])) for row in rows]))
        longest = max(map(len, rows))
        # Padded with the end token, as transformers does: attention is causal, so nothing before it can tell.
        return self.encode_tokens(self._ids([row + row[-1:] * (longest - len(row)) for row in rows]))

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Encode token ids.

        Args:
            ids: (n, T) int, T up to the context length, start and end tokens in place; what follows the end of a row
                does not matter (OpenAI pads with 0, transformers with the end token).

        Returns:
            (n, C) float32, not normalised (METHOD section 4).

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
                    f"a text without the end token {self.config.end_token}: the tokenizer is not this text tower's"
                )
            end = is_end.int().argmax(-1)
        return self.encode_embeddings(self._table(ids[:, : int(end.max()) + 1]), end)

    def encode_embeddings(self, embeddings: Tensor, end: Tensor) -> Tensor:
        """Encode rows of the token table, or vectors in their place.

        Args:
            embeddings: (n, T, width) float, without positions.
            end: (n,) int64, the position that is read off.

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
        """Positions that a text takes, the learned prompt, start and end included; it may be more than there are."""
        return len(self._tokenize([text])[0]) + (0 if self.prompt is None else self.prompt.overhead - 2)

    @property
    def identity(self) -> str:
        """A hash of everything that an embedding depends on: weights in their precision, prompt, settings, tokenizer.

        It is computed once (250 MB of weights take about 0.2 s), and again only where weights have changed.
        """
        state = self.state_dict()
        version = tuple(
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in state.values()
        )
        if self._identity[0] != version:
            digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
            if self.tokenizer is not None:
                digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
            for key, tensor in state.items():
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
            self._identity = (version, digest.hexdigest())
        return self._identity[1]

    def add_prompt(self, prefix: int = 16, suffix: int = 0) -> LearnedPrompt:
        """Put a fresh learned prompt around all names from here on, drawn normal * 0.02 (METHOD section 4).

        Raises:
            CheckpointError: the tower has no tokenizer, which knows the start, "." and end tokens.
        """
        start, dot, end = self._tokenize(["."])[0]
        weight = self._table.weight.detach()
        prompt = LearnedPrompt(self.config.width, prefix, suffix).to(weight)
        for name, token in (("start", start), ("dot", dot), ("end", end), ("pad", 0)):
            getattr(prompt, name).copy_(weight[[token]])
        self.prompt = prompt
        self.config = replace(self.config, prompt=(prefix, suffix))
        return prompt

    def config_dict(self) -> dict[str, Any]:
        """The settings, as JSON would have them: ``from_config`` takes them back."""
        return asdict(self.config)

    @classmethod
    def from_config(cls, values: dict[str, Any], folder: str | Path | None = None) -> "CLIPText":
        """A tower of random weights from ``config_dict``'s settings, with the tokenizer of a folder that has one.

        Raises:
            CheckpointError: settings that are not known, or a damaged tokenizer.
        """
        config = from_json(TextConfig, values, "the text tower")
        there = folder is not None and Path(folder, "tokenizer_config.json").is_file()
        return cls(config, read_tokenizer(folder) if folder is not None and there else None).eval()

    def save_tokenizer(self, folder: str | Path) -> None:
        """Write the tokenizer's files, where there is one, into a folder, from where ``from_config`` reads them."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "CLIPText":
        """The tower and tokenizer of a folder in the layout of transformers' CLIP.

        Raises:
            CheckpointError: no such layout, weights missing, surplus, damaged or pickled, or no tokenizer.
        """
        text = cls(TextConfig(**read_text_config(Path(folder))), read_tokenizer(folder))
        state = {
            key: value
            for key, value in read_weights(folder).items()
            if key.startswith(("text_model.", "text_projection.")) and not key.endswith("position_ids")
        }
        load_strictly(text.tower, state, f"the text tower in {folder}")
        return text.eval()

    @classmethod
    def from_openai(
        cls,
        state: dict[str, Tensor],
        prompt: dict[str, Tensor] | None = None,
        *,
        heads: int | None = None,
        activation: str = "quick_gelu",
        tokenizer: str | Path | None = None,
    ) -> "CLIPText":
        """The tower of a state dict in OpenAI's own layout, or of the original's checkpoints.

        Args:
            state: keys as in OpenAI's files without ``visual.``: ``token_embedding.weight``, ...; the original has them
                below ``clip_adapter.clip_model.``. Sizes are read from the shapes.
            prompt: the original's learned prompt, keys without ``prompt_learner.``: ``prefix_prompt``, ...
            heads: attention heads; None: one for each 64 channels, as in every published CLIP.
            activation: "quick_gelu" or "gelu".
            tokenizer: a folder with CLIP's tokenizer; None: ids can be encoded, texts cannot.

        Raises:
            CheckpointError: naming missing and surplus keys.
        """
        settings, renamed = text_from_openai(state, heads)
        shape = None
        if prompt is not None:
            prompt = prompt_from_original(prompt)
            shape = (len(prompt["prefix"]), len(prompt["suffix"]))
        config = TextConfig(**settings, activation=activation, prompt=shape)
        text = cls(config, None if tokenizer is None else read_tokenizer(tokenizer))
        load_strictly(text.tower, renamed, "the text tower")
        if text.prompt is not None and prompt is not None:
            load_strictly(text.prompt, prompt, "the learned prompt")
        return text.eval()

    @property
    def _table(self) -> nn.Embedding:
        return self.tower.text_model.embeddings.token_embedding

    def _ids(self, rows: list[Any]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._table.weight.device)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with start and end, uncut."""
        # verbose=False: the tokenizer would warn of long texts without naming them.
        return self._need_tokenizer()(list(texts), verbose=False)["input_ids"]

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise CheckpointError(
                "this text tower has no tokenizer: give the folder of a CLIP tokenizer when loading it"
            )
        return self.tokenizer


def read_tokenizer(folder: str | Path) -> Any:
    """transformers' tokenizer of a local folder.

    Raises:
        CheckpointError: no tokenizer there, or a damaged one.
    """
    from transformers import AutoTokenizer

    if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(f"no tokenizer in {folder}: expected tokenizer.json, or vocab.json and merges.txt")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # What damaged files raise is the tokenizers library's own choice, bare Exception included.
    except Exception as error:
        raise CheckpointError(f"cannot read the tokenizer in {folder}: {error}") from error
