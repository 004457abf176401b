"""Configurations and key names of TIPSv2, translated to deop's: transformers' and those of the authors' repos.

transformers writes the authors' names too, unless it is told to save its own.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deop.encoders import text_sizes
from deop.encoders.clip_keys import pack_qkv, rename
from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import Normalization
from deop.networks.loading import read_normalization, read_weights

NORMALIZATION = Normalization((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
"""Pixels from 0 to 1."""

_PARTS = r"(weight|bias)"
_VISION = {
    r"(?:embeddings\.)?cls_token": "class_token",
    r"(?:embeddings\.)?register_tokens": "register_tokens",
    r"pos_embed|embeddings\.position_embeddings": "positions",
    rf"(?:patch_embed\.proj|embeddings\.patch_embeddings\.projection)\.{_PARTS}": r"patch_embedding.\1",
    rf"(?:norm|layernorm)\.{_PARTS}": r"norm_post.\1",
    rf"(?:blocks|encoder\.layer)\.(\d+)\.norm([12])\.{_PARTS}": r"blocks.\1.norm\2.\3",
    rf"blocks\.(\d+)\.attn\.qkv\.{_PARTS}": r"blocks.\1.attention.qkv.\2",
    rf"encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.{_PARTS}": r"blocks.\1.attention.\2.\3",
    rf"(?:blocks|encoder\.layer)\.(\d+)\.(?:attn\.proj|attention\.o_proj)\.{_PARTS}": r"blocks.\1.attention.out.\2",
    rf"(?:blocks|encoder\.layer)\.(\d+)\.mlp\.(?:c_fc|fc1|w12)\.{_PARTS}": r"blocks.\1.up.\2",
    rf"(?:blocks|encoder\.layer)\.(\d+)\.mlp\.(?:c_proj|fc2|w3|down_proj)\.{_PARTS}": r"blocks.\1.down.\2",
    rf"encoder\.layer\.(\d+)\.mlp\.(gate|up)_proj\.{_PARTS}": r"blocks.\1.\2_half.\3",
    r"(?:blocks|encoder\.layer)\.(\d+)\.(?:ls|layer_scale)([12])\.(?:gamma|lambda1)": r"blocks.\1.scale\2",
}
_TEXT = {
    rf"ln_final\.{_PARTS}": r"final_layer_norm.\1",
    r"token_embedding\.weight": "embeddings.token_embedding.weight",
    rf"transformer\.resblocks\.(\d+)\.ln_([12])\.{_PARTS}": r"encoder.layers.\1.layer_norm\2.\3",
    rf"transformer\.resblocks\.(\d+)\.attn\.in_proj_{_PARTS}": r"encoder.layers.\1.self_attn.qkv.\2",
    rf"transformer\.resblocks\.(\d+)\.attn\.out_proj\.{_PARTS}": r"encoder.layers.\1.self_attn.out_proj.\2",
    rf"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.{_PARTS}": r"encoder.layers.\1.mlp.fc1.\2",
    rf"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.{_PARTS}": r"encoder.layers.\1.mlp.fc2.\2",
}
# Layers, heads and ratio of MLP to width of the authors' ``vision_fn``.
_AUTHORS = {
    "vit_small": (12, 6, 4.0),
    "vit_base": (12, 12, 4.0),
    "vit_large": (24, 16, 4.0),
    "vit_so400m": (27, 16, 4304 / 1152),
    "vit_giant2": (40, 24, 4.0),
}


def read_tips_vision_config(folder: Path) -> dict[str, Any]:
    """Read the vision settings of ``config.json`` and the normalisation of ``preprocessor_config.json``.

    Returns:
        Fields of ``TipsVisionConfig``.

    Raises:
        CheckpointError: no config.json, or that of another kind of model.
    """
    path = folder / "config.json"
    values = _raw(path)
    if "vision_fn" in values:
        if values["vision_fn"] not in _AUTHORS:
            raise CheckpointError(f"{path}: unknown vision_fn {values['vision_fn']!r}: expected {', '.join(_AUTHORS)}")
        layers, heads, ratio = _AUTHORS[values["vision_fn"]]
        width, patch, side = values.get("embed_dim"), values.get("patch_size"), values.get("img_size")
        registers, activation, norm_eps = values.get("num_register_tokens", 1), "gelu", 1e-6
        swiglu = values.get("ffn_layer", "mlp") != "mlp"
    else:
        vision = _read_config(folder, "vision")
        layers, heads, ratio = vision.num_hidden_layers, vision.num_attention_heads, vision.mlp_ratio
        width, patch, side = vision.hidden_size, vision.patch_size, vision.image_size
        registers, activation, norm_eps = vision.num_register_tokens, vision.hidden_act, vision.layer_norm_eps
        swiglu = vision.use_swiglu_ffn
    if not (isinstance(width, int) and isinstance(patch, int) and isinstance(side, int)):
        raise CheckpointError(f"{path} has patches or images that are not square: deop needs square ones")
    hidden = int(width * ratio + 1e-6)
    return {
        "width": width,
        "layers": layers,
        "heads": heads,
        "hidden": (int(hidden * 2 / 3) + 7) // 8 * 8 if swiglu else hidden,
        "patch": patch,
        "grid": side // patch,
        "activation": "swiglu" if swiglu else activation,
        "norm_eps": norm_eps,
        "registers": registers,
        "normalization": _read_normalization(folder),
    }


def read_tips_text_config(folder: Path) -> dict[str, Any]:
    """Read the text settings of ``config.json``.

    Returns:
        Fields of ``TipsTextConfig``.

    Raises:
        CheckpointError: no config.json, or that of another kind of model.
    """
    path = folder / "config.json"
    values = _raw(path)
    if "vision_fn" in values:
        names = ("vocab_size", "text_hidden_size", "text_num_layers", "text_num_heads", "text_mlp_dim", "max_len")
        if missing := [name for name in names if not isinstance(values.get(name), int)]:
            raise CheckpointError(f"{path} lacks {', '.join(missing)}: fetch the folder again")
        fields = ("tokens", "width", "layers", "heads", "hidden", "context")
        return {field: values[name] for field, name in zip(fields, names, strict=True)}
    text = _read_config(folder, "text")
    return {
        **text_sizes.from_transformers(text),
        "scaled": text.scale_sqrt_depth,
        "pooling_eps": text.pooling_epsilon,
    }


def read_tips_temperature(folder: str | Path) -> float:
    """The factor of the model's cosine similarities, about 200: 1 / temperature.

    The weights have the temperature, or else the configuration.

    Raises:
        CheckpointError: neither has one, or it is not positive.
    """
    values = _raw(Path(folder) / "config.json")
    learned = read_weights(folder).get("temperature")
    stated = values.get("temperature", values.get("temperature_init_value"))
    temperature = float(learned) if learned is not None else stated
    if not isinstance(temperature, float) or not temperature > 0:
        raise CheckpointError(f"the temperature of the model in {folder} is {temperature}: fetch the folder again")
    return 1 / temperature


def vision_from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision weights of a whole model or of the vision tower alone, under deop's keys.

    The factors of the residual branches (layer scale) become part of the weights before them.
    """
    renamed = {
        rename(key, _VISION): value
        for key, value in _tower(state, "vision").items()
        if not key.endswith("mask_token")  # used in training only
    }
    for key in [key for key in renamed if re.fullmatch(r"blocks\.\d+\.gate_half\.(weight|bias)", key)]:
        up = renamed.get(key.replace("gate_half", "up_half"))
        if up is not None and (up.shape, up.dtype) == (renamed[key].shape, renamed[key].dtype):
            del renamed[key.replace("gate_half", "up_half")]
            renamed[key.replace("gate_half", "up")] = torch.cat([renamed.pop(key), up])
    for key in ("class_token", "register_tokens", "positions"):  # (1, tokens, C)
        if key in renamed and renamed[key].ndim == 3:
            renamed[key] = renamed[key][0, 0] if key == "class_token" else renamed[key][0]
    renamed = pack_qkv(renamed)
    for key in [key for key in renamed if re.fullmatch(r"blocks\.\d+\.scale[12]", key)]:
        scale = renamed.pop(key)
        layer = key.replace("scale1", "attention.out").replace("scale2", "down")
        for part, factor in (("weight", scale[:, None]), ("bias", scale)):
            if f"{layer}.{part}" in renamed:
                renamed[f"{layer}.{part}"] = renamed[f"{layer}.{part}"] * factor
    for key in [key for key in renamed if key.endswith(".attention.qkv.weight")]:
        # Models can lack the bias of the projections (``qkv_bias``).
        renamed.setdefault(key.replace(".weight", ".bias"), renamed[key].new_zeros(len(renamed[key])))
    return renamed


def text_from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' ``Tipsv2TextModel`` in those of a whole model or of the text tower alone."""
    renamed = {}
    for key, value in _tower(state, "text").items():
        name = rename(key, _TEXT)
        if ".self_attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".qkv.", f".{letter}_proj.")] = part.clone()
        else:
            renamed[name] = value
    return renamed


def _tower(state: dict[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The weights of a tower without the prefix that a whole model has."""
    prefixes = (f"{tower}_model.", f"{tower}_encoder.")
    chosen = {
        key.removeprefix(prefix): value for prefix in prefixes for key, value in state.items() if key.startswith(prefix)
    }
    return chosen or dict(state)


def _read_normalization(folder: Path) -> Normalization:
    """The channel statistics, if the images are to be normalised at all; transformers' default is that they are not."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            values = read_json(folder / name)
            part = values.get("image_processor")
            if (part if isinstance(part, dict) else values).get("do_normalize"):
                return read_normalization(folder, NORMALIZATION)
    return NORMALIZATION


def _raw(path: Path) -> dict[str, Any]:
    """The content of a config.json of TIPSv2."""
    values = read_json(path)
    if values.get("model_type") not in ("tipsv2", "tipsv2_vision_model", "tipsv2_text_model"):
        raise CheckpointError(f"{path} has model type {values.get('model_type')!r}: expected a TIPSv2 ('tipsv2')")
    return values


def _read_config(folder: Path, tower: str) -> Any:
    """The configuration of a tower, as transformers reads it."""
    import transformers

    path = folder / "config.json"
    kind = str(read_json(path).get("model_type"))
    suffix = "" if kind == "tipsv2" else tower.capitalize()
    if kind not in ("tipsv2", f"tipsv2_{tower}_model"):
        raise CheckpointError(f"{path} has model type {kind!r}: expected 'tipsv2' or 'tipsv2_{tower}_model'")
    try:
        config: Any = getattr(transformers, f"Tipsv2{suffix}Config").from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except AttributeError as error:
        raise CheckpointError(f"{path} is a TIPSv2, which needs transformers 5.14 or later: update it") from error
    return config if suffix else getattr(config, f"{tower}_config")
