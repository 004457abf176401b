"""Key names and configurations of CLIP models in other projects' formats, translated to deop's."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.encoders import text_sizes
from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import list_some, read_normalization

BLOCK_FROM_TRANSFORMERS = {
    r"encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
    r"encoder\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)": r"blocks.\1.up.\2",
    r"encoder\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)": r"blocks.\1.down.\2",
    r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)": r"blocks.\1.attention.\2.\3",
    r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)": r"blocks.\1.attention.out.\2",
}
"""Names of the weights of a block in transformers' CLIP and SigLIP."""
_VISION_FROM_TRANSFORMERS = {
    r"embeddings\.class_embedding": "class_token",
    r"embeddings\.patch_embedding\.weight": "patch_embedding.weight",
    r"embeddings\.position_embedding\.weight": "positions",
    r"pre_layrnorm\.(weight|bias)": r"norm_pre.\1",
    r"post_layernorm\.(weight|bias)": r"norm_post.\1",
    **BLOCK_FROM_TRANSFORMERS,
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
# Files of OpenAI and open_clip hold these beside the weights of the text encoder. deop has a fixed temperature, and the
# bias of a sigmoid loss does not change which name is the best.
_NOT_TEXT_WEIGHTS = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
# Width -> channels of a head of the vision transformers that were published, from ViT-S to ViT-e. Text transformers
# have 64 at every width.
_HEAD_WIDTHS = {384: 64, 512: 64, 640: 64, 768: 64, 896: 64, 1024: 64, 1280: 80, 1408: 88, 1664: 104, 1792: 112}
_TEXT_WIDTHS = (384, 512, 640, 768, 1024, 1280)
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
    return pack_qkv(renamed)


def pack_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the projections to queries, keys and values of each block as one.

    Those that do not fit together stay as they are, so that strict loading reports them.
    """
    packed = dict(state)
    for key in [key for key in state if re.fullmatch(r"blocks\.\d+\.attention\.q\.(weight|bias)", key)]:
        keys = [key.replace(".q.", f".{part}.") for part in "qkv"]
        parts = [state[name] for name in keys if name in state]
        if len(parts) == 3 and len({(part.shape, part.dtype) for part in parts}) == 1:
            for name in keys:
                del packed[name]
            packed[key.replace(".q.", ".qkv.")] = torch.cat(parts)
    return packed


def published_heads(width: int, tower: str) -> int:
    """The number of attention heads of the published CLIPs of a width. It cannot be seen in their weights.

    Args:
        width: channels of the transformer.
        tower: "vision" or "text".

    Raises:
        CheckpointError: no published model has this width.

    >>> published_heads(1280, "vision"), published_heads(1280, "text")  # ViT-H-14, ViT-bigG-14
    (16, 20)
    """
    head_width = _HEAD_WIDTHS.get(width) if tower == "vision" else 64 if width in _TEXT_WIDTHS else None
    if head_width is None:
        raise CheckpointError(
            f"the number of attention heads of the {tower} transformer is not known: weights do not contain it, and no "
            f"published CLIP has the width {width}. Put open_clip's open_clip_config.json of the model beside the "
            "weights, or give it with --config FILE (config=... in Python)"
        )
    return width // head_width


def vision_from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translate a vision state dict in OpenAI's layout.

    Args:
        state: keys below ``visual.``.
        heads: attention heads; None: those of the published CLIP of this width.

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
        "heads": heads or published_heads(width, "vision"),
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
    config, vision = _read_clip_config(folder, "vision")
    patch, side = vision.patch_size, vision.image_size
    if not isinstance(patch, int) or not isinstance(side, int):
        raise CheckpointError(
            f"{folder / 'config.json'} has patches or images that are not square: deop needs square ones"
        )
    settings = {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "hidden": vision.intermediate_size,
        "patch": patch,
        "grid": side // patch,
        "output": config.projection_dim,
        "activation": vision.hidden_act,
        "norm_eps": vision.layer_norm_eps,
    }
    return settings, read_normalization(folder, CLIP)


def text_from_openai(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Translate a text state dict in OpenAI's layout.

    Args:
        state: keys of OpenAI's files without those below ``visual.``.
        heads: attention heads; None: those of the published CLIP of this width.

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
        "heads": heads or published_heads(width, "text"),
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
    config, text = _read_clip_config(folder, "text")
    return {
        **text_sizes.from_transformers(text),
        "output": config.projection_dim,
        # CLIP configs written before transformers 4.31 wrongly say 2; there the end token is the largest id of a row.
        "end_token": None if text.eos_token_id == 2 and "metaclip" not in text.model_type else text.eos_token_id,
    }


def _read_clip_config(folder: Path, tower: str) -> tuple[Any, Any]:
    """The configuration of a whole CLIP or MetaCLIP 2 or of one tower of it, as transformers reads it, and the tower's.

    transformers also reads the older entries ``vision_config_dict`` and ``text_config_dict``, which take precedence.
    """
    import transformers

    path = folder / "config.json"
    kind = str(read_json(path).get("model_type"))
    family = "metaclip_2" if kind.startswith("metaclip_2") else "clip"
    part = f"{family}_{tower}_model"
    if kind not in (family, part):
        raise CheckpointError(f"{path} has model type {kind!r}: expected a CLIP of transformers ('clip' or {part!r})")
    name = "MetaClip2" if family == "metaclip_2" else "CLIP"
    suffix = "" if kind == family else tower.capitalize()
    try:
        config: Any = getattr(transformers, f"{name}{suffix}Config").from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    return config, config if suffix else getattr(config, f"{tower}_config")
