"""How others name the settings and weights of CLIP's text tower, and how transformers does."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from deop.errors import CheckpointError
from deop.networks.loading import list_some

_OPENAI = {
    r"token_embedding\.weight": "text_model.embeddings.token_embedding.weight",
    r"positional_embedding": "text_model.embeddings.position_embedding.weight",
    r"ln_final\.(weight|bias)": r"text_model.final_layer_norm.\1",
    r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)": r"text_model.encoder.layers.\1.layer_norm\2.\3",
    r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)": (
        r"text_model.encoder.layers.\1.self_attn.out_proj.\2"
    ),
    r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)": r"text_model.encoder.layers.\1.mlp.fc1.\2",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)": r"text_model.encoder.layers.\1.mlp.fc2.\2",
}
_PACKED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
# Beside the text tower's weights in OpenAI's files, but not of it.
_IGNORED = ("logit_scale", "input_resolution", "context_length", "vocab_size")
_PROMPT = {
    "prefix_prompt": "prefix",
    "suffix_prompt": "suffix",
    "start_signal": "start",
    "dot_signal": "dot",
    "end_signal": "end",
    "pad_signal": "pad",
}


def text_from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes of the tower, read from the shapes, and its weights under transformers' keys.

    Keys that no rule knows stay as they are, for the strict loading to complain of.

    Raises:
        CheckpointError: a key without which the sizes cannot be read.
    """
    hidden = "transformer.resblocks.0.mlp.c_fc.weight"
    needed = ("token_embedding.weight", "positional_embedding", "text_projection", hidden)
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(f"not the state dict of a CLIP text tower: {', '.join(missing)} missing")
    renamed: dict[str, Tensor] = {}
    layers = 0
    for key, value in state.items():
        if match := re.match(r"transformer\.resblocks\.(\d+)\.", key):
            layers = max(layers, 1 + int(match[1]))
        if key == "text_projection":
            renamed["text_projection.weight"] = value.T.contiguous()
        elif match := _PACKED.fullmatch(key):
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"text_model.encoder.layers.{match[1]}.self_attn.{part}_proj.{match[2]}"] = third.clone()
        elif key not in _IGNORED:
            renamed[_rename(key)] = value
    vocabulary, width = state["token_embedding.weight"].shape
    settings = {
        "tokens": vocabulary,
        "width": width,
        "layers": layers,
        "heads": heads or max(width // 64, 1),
        "hidden": state[hidden].shape[0],
        "context": state["positional_embedding"].shape[0],
        "output": state["text_projection"].shape[1],
    }
    return settings, renamed


def _rename(key: str) -> str:
    for pattern, other in _OPENAI.items():
        if match := re.fullmatch(pattern, key):
            return match.expand(other)
    return key


def prompt_from_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A learned prompt of the original's checkpoints (below ``prompt_learner.``) under our keys.

    Raises:
        CheckpointError: naming missing and surplus keys.
    """
    complaints = [f"{key} is not known" for key in state if key not in _PROMPT]
    # A prompt of no suffix has no such entry.
    complaints += [f"{key} is missing" for key in _PROMPT if key not in state and key != "suffix_prompt"]
    if complaints:
        raise CheckpointError("the weights of the learned prompt do not fit: " + list_some(complaints))
    renamed = {_PROMPT[key]: value for key, value in state.items()}
    renamed.setdefault("suffix", renamed["prefix"].new_zeros(0, renamed["prefix"].shape[1]))
    return renamed


def read_text_config(folder: Path) -> dict[str, Any]:
    """The text settings of a folder in the layout of transformers' CLIP.

    Raises:
        CheckpointError: no config.json, or not that of a CLIP.
    """
    from transformers import CLIPConfig, CLIPTextConfig

    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text()).get("model_type")
        if kind not in ("clip", "clip_text_model"):
            raise CheckpointError(f"{path} is of a {kind or 'model of no type'}: expected transformers' CLIP")
        config: Any = (CLIPConfig if kind == "clip" else CLIPTextConfig).from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot read {path}: {error}") from error
    text = config.text_config if kind == "clip" else config
    return {
        "tokens": text.vocab_size,
        "width": text.hidden_size,
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "hidden": text.intermediate_size,
        "context": text.max_position_embeddings,
        "output": config.projection_dim,
        "activation": text.hidden_act,
        "norm_eps": text.layer_norm_eps,
        # Configs from before transformers 4.31 say 2, wrongly: there the end is the largest id of a row.
        "end_token": None if text.eos_token_id == 2 else text.eos_token_id,
    }
