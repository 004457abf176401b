"""How others name the weights of CLIP's vision tower, and how we do."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import read_normalization

_TRANSFORMERS = {
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

_OPENAI = {
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


def rename(key: str, rules: dict[str, str]) -> str:
    """The key under our name; a key that no rule knows stays as it is, for the strict loading to complain of."""
    for pattern, ours in rules.items():
        if match := re.fullmatch(pattern, key):
            return match.expand(ours)
    return key


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision part of transformers' CLIPModel (or CLIPVisionModelWithProjection) under our keys."""
    renamed = {}
    for key, value in state.items():
        if key == "visual_projection.weight":
            renamed["projection"] = value.T.contiguous()
        elif key.startswith("vision_model.") and not key.endswith("position_ids"):
            renamed[rename(key.removeprefix("vision_model."), _TRANSFORMERS)] = value
    for key in [key for key in renamed if re.fullmatch(r"blocks\.\d+\.attention\.q\.(weight|bias)", key)]:
        parts = [renamed.pop(key.replace(".q.", f".{part}."), None) for part in "qkv"]
        if all(part is not None for part in parts):
            renamed[key.replace(".q.", ".qkv.")] = torch.cat([part for part in parts if part is not None])
    return renamed


def from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes of the tower, read from the shapes, and its weights under our keys.

    Raises:
        CheckpointError: a key without which the sizes cannot be read.
    """
    renamed = {rename(key, _OPENAI): value for key, value in state.items()}
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


def read_transformers_config(folder: Path) -> tuple[dict[str, Any], Normalization]:
    """The vision settings of ``config.json`` and the normalisation of ``preprocessor_config.json``.

    What a config leaves out is transformers' default. Without a preprocessor file the normalisation is CLIP's.

    Raises:
        CheckpointError: no config.json, or not that of a CLIP.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("model_type") not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{path} is of a {config.get('model_type', 'model of no type')}: expected transformers' CLIP "
            "('model_type': 'clip')"
        )
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
