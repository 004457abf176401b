"""Key names and configurations of CLIP models in other projects' formats, translated to deop's."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import list_some, read_normalization

_VISION_FROM_TRANSFORMERS = {
    r"embeddings\.class_embedding": "class_token",
    r"embeddings\.patch_embedding\.weight": "patch_embedding.weight",
    r"embeddings\.position_embedding\.weight": "positions",
    r"pre_layrnorm\.(weight|bias)": r"norm_pre.\1",
    r"post_layernorm\.(weight|bias)": r"norm_post.\1",
    r"encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
    r"encoder\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)": r"blocks.\1.up.\2",
    r"encoder\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)": r"blocks.\1.down.\2",
    r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)": r"blocks.\1.attention.out.\2",
}
_VISION_FROM_OPENAI = {
    r"class_embedding": "class_token",
    r"conv1\.weight": "patch_embedding.weight",
    r"positional_embedding": "positions",
    r"learned_position": "learned_positions.input",
    r"proj": "projection",
    r"ln_(pre|post)\.(weight|bias)": r"norm_\1.\2",
    r"transformer\.resblocks\.(\d+)\.learned_position": r"learned_positions.\1",
    r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
    r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)": r"blocks.\1.attention.qkv.\2",
    r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)": r"blocks.\1.attention.out.\2",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)": r"blocks.\1.up.\2",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)": r"blocks.\1.down.\2",
}
_TEXT_FROM_OPENAI = {
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
_PACKED_QKV = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
# OpenAI's files hold these beside the weights of the text encoder.
_NOT_TEXT_WEIGHTS = ("logit_scale", "input_resolution", "context_length", "vocab_size")
_PROMPT = {
    "prefix_prompt": "prefix",
    "suffix_prompt": "suffix",
    "start_signal": "start",
    "dot_signal": "dot",
    "end_signal": "end",
    "pad_signal": "pad",
}


def rename(key: str, rules: dict[str, str]) -> str:
    """Apply the first rule (pattern -> replacement) that matches the whole key; a key without a rule is returned as is.

    >>> rename("ln_pre.bias", {r"ln_(pre|post)\\.bias": r"norm_\\1.bias"})
    'norm_pre.bias'
    """
    for pattern, replacement in rules.items():
        if match := re.fullmatch(pattern, key):
            return match.expand(replacement)
    return key


def vision_from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the vision weights of transformers' CLIPModel or CLIPVisionModelWithProjection to deop's keys."""
    renamed = {}
    for key, value in state.items():
        if key == "visual_projection.weight":
            renamed["projection"] = value.T.contiguous()
        elif key.startswith("vision_model.") and not key.endswith("position_ids"):
            renamed[rename(key.removeprefix("vision_model."), _VISION_FROM_TRANSFORMERS)] = value
    for key in [key for key in renamed if re.fullmatch(r"blocks\.\d+\.attention\.q\.(weight|bias)", key)]:
        parts = [renamed.pop(key.replace(".q.", f".{part}."), None) for part in "qkv"]
        if all(part is not None for part in parts):
            renamed[key.replace(".q.", ".qkv.")] = torch.cat([part for part in parts if part is not None])
    return renamed


def vision_from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translate a vision state dict in OpenAI's layout.

    Args:
        state: keys below ``visual.``.
        heads: attention heads; None: one for every 64 channels.

    Returns:
        Fields of ``VisionConfig``, read from the shapes, and the weights under deop's keys. Unknown keys are kept, so
        that strict loading reports them.

    Raises:
        CheckpointError: a key that is needed to read the sizes is missing.
    """
    renamed = {rename(key, _VISION_FROM_OPENAI): value for key, value in state.items()}
    needed = ("patch_embedding.weight", "positions", "projection", "blocks.0.up.weight")
    if missing := [key for key in needed if key not in renamed]:
        raise CheckpointError(f"not the state dict of a CLIP vision transformer: {', '.join(missing)} missing")
    width, _, patch, _ = renamed["patch_embedding.weight"].shape
    blocks = {int(match[1]) for key in renamed if (match := re.match(r"blocks\.(\d+)\.", key))}
    learned = {key.removeprefix("learned_positions."): value for key, value in renamed.items() if "learned_pos" in key}
    settings = {
        "width": width,
        "layers": 1 + max(blocks),
        "heads": heads or max(width // 64, 1),
        "hidden": renamed["blocks.0.up.weight"].shape[0],
        "patch": patch,
        "grid": round((renamed["positions"].shape[0] - 1) ** 0.5),
        "output": renamed["projection"].shape[1],
        "learned_at_input": "input" in learned,
        "learned_in_blocks": tuple(sorted(int(name) for name in learned if name != "input")),
    }
    if learned:
        settings["learned_grid"] = round((next(iter(learned.values())).shape[0] - 1) ** 0.5)
    return settings, renamed


def read_vision_config(folder: Path) -> tuple[dict[str, Any], Normalization]:
    """Read the vision settings of ``config.json`` and the normalisation of ``preprocessor_config.json``.

    Entries that a config omits have transformers' defaults. Without a preprocessor file the normalisation is CLIP's.

    Returns:
        Fields of ``VisionConfig``, and the normalisation.

    Raises:
        CheckpointError: no config.json, or that of another kind of model.
    """
    config = _read_clip_config(folder, "clip_vision_model")
    vision = config.get("vision_config", config)
    patch = vision.get("patch_size", 32)
    settings = {
        "width": vision.get("hidden_size", 768),
        "layers": vision.get("num_hidden_layers", 12),
        "heads": vision.get("num_attention_heads", 12),
        "hidden": vision.get("intermediate_size", 3072),
        "patch": patch,
        "grid": vision.get("image_size", 224) // patch,
        "output": config.get("projection_dim", vision.get("projection_dim", 512)),
        "activation": vision.get("hidden_act", "quick_gelu"),
        "norm_eps": vision.get("layer_norm_eps", 1e-5),
    }
    return settings, read_normalization(folder, CLIP)


def text_from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translate a text state dict in OpenAI's layout.

    Args:
        state: keys of OpenAI's files without those below ``visual.``.
        heads: attention heads; None: one for every 64 channels.

    Returns:
        Fields of ``TextConfig``, read from the shapes, and the weights under transformers' keys. Unknown keys are
        kept, so that strict loading reports them.

    Raises:
        CheckpointError: a key that is needed to read the sizes is missing.
    """
    hidden = "transformer.resblocks.0.mlp.c_fc.weight"
    needed = ("token_embedding.weight", "positional_embedding", "text_projection", hidden)
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(f"not the state dict of a CLIP text encoder: {', '.join(missing)} missing")
    renamed: dict[str, Tensor] = {}
    layers = 0
    for key, value in state.items():
        if match := re.match(r"transformer\.resblocks\.(\d+)\.", key):
            layers = max(layers, 1 + int(match[1]))
        if key == "text_projection":
            renamed["text_projection.weight"] = value.T.contiguous()
        elif match := _PACKED_QKV.fullmatch(key):
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"text_model.encoder.layers.{match[1]}.self_attn.{part}_proj.{match[2]}"] = third.clone()
        elif key not in _NOT_TEXT_WEIGHTS:
            renamed[rename(key, _TEXT_FROM_OPENAI)] = value
    tokens, width = state["token_embedding.weight"].shape
    settings = {
        "tokens": tokens,
        "width": width,
        "layers": layers,
        "heads": heads or max(width // 64, 1),
        "hidden": state[hidden].shape[0],
        "context": state["positional_embedding"].shape[0],
        "output": state["text_projection"].shape[1],
    }
    return settings, renamed


def prompt_from_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a learned prompt of the original's checkpoints (keys below ``prompt_learner.``) to deop's keys.

    Raises:
        CheckpointError: listing missing and unexpected keys.
    """
    problems = [f"{key} is unexpected" for key in state if key not in _PROMPT]
    # A prompt without a suffix has no such entry.
    problems += [f"{key} is missing" for key in _PROMPT if key not in state and key != "suffix_prompt"]
    if problems:
        raise CheckpointError("the weights of the learned prompt do not fit: " + list_some(problems))
    renamed = {_PROMPT[key]: value for key, value in state.items()}
    renamed.setdefault("suffix", renamed["prefix"].new_zeros(0, renamed["prefix"].shape[1]))
    return renamed


def read_text_config(folder: Path) -> dict[str, Any]:
    """Read the text settings of a folder in the layout of transformers' CLIP.

    Returns:
        Fields of ``TextConfig``.

    Raises:
        CheckpointError: no config.json, or that of another kind of model.
    """
    from transformers import CLIPConfig, CLIPTextConfig

    whole = _read_clip_config(folder, "clip_text_model")["model_type"] == "clip"
    try:
        config: Any = (CLIPConfig if whole else CLIPTextConfig).from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {folder / 'config.json'}: {error}") from error
    text = config.text_config if whole else config
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
        # Configs written before transformers 4.31 wrongly say 2; there the end token is the largest id of a row.
        "end_token": None if text.eos_token_id == 2 else text.eos_token_id,
    }


def _read_clip_config(folder: Path, part: str) -> dict[str, Any]:
    """The config.json of a whole CLIP model, or of one part of it (a model type of transformers)."""
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in ("clip", part):
        raise CheckpointError(f"{path} has model type {kind!r}: expected a CLIP of transformers ('clip' or {part!r})")
    return config
