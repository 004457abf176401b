"""Configurations and key names of transformers' SigLIP and SigLIP 2, translated to deop's."""

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from deop.encoders import text_sizes
from deop.encoders.clip_keys import BLOCK_FROM_TRANSFORMERS, pack_qkv, rename
from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import Normalization
from deop.networks.loading import read_normalization, read_weights

NORMALIZATION = Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""Pixels from -1 to 1."""

_VISION = {
    r"embeddings\.patch_embedding\.(weight|bias)": r"patch_embedding.\1",
    r"embeddings\.position_embedding\.weight": "positions",
    r"post_layernorm\.(weight|bias)": r"norm_post.\1",
    r"head\.probe": "head.probe",
    r"head\.attention\.in_proj_(weight|bias)": r"head.qkv.\1",
    r"head\.attention\.out_proj\.(weight|bias)": r"head.out.\1",
    r"head\.layernorm\.(weight|bias)": r"head.norm.\1",
    r"head\.mlp\.fc1\.(weight|bias)": r"head.up.\1",
    r"head\.mlp\.fc2\.(weight|bias)": r"head.down.\1",
    **BLOCK_FROM_TRANSFORMERS,
}


def read_siglip_vision_config(folder: Path) -> dict[str, Any]:
    """Read the vision settings of ``config.json`` and the normalisation of ``preprocessor_config.json``.

    Returns:
        Fields of ``SiglipVisionConfig``.

    Raises:
        CheckpointError: no config.json, that of another kind of model, or a model without pooling head.
    """
    vision = _read_config(folder, "vision")
    flexible = hasattr(vision, "num_patches")
    if not vision.vision_use_head:
        raise CheckpointError(
            f"{folder / 'config.json'} describes a SigLIP without its pooling head, which maps patches to the joint "
            "space with text: use the whole model"
        )
    patch = vision.patch_size
    side = math.isqrt(vision.num_patches) * patch if flexible else vision.image_size
    if not isinstance(patch, int) or not isinstance(side, int):
        raise CheckpointError(
            f"{folder / 'config.json'} has patches or images that are not square: deop needs square ones"
        )
    return {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "hidden": vision.intermediate_size,
        "patch": patch,
        "grid": side // patch,
        "activation": vision.hidden_act,
        "norm_eps": vision.layer_norm_eps,
        "flexible": flexible,
        "normalization": read_normalization(folder, NORMALIZATION),
    }


def read_siglip_text_config(folder: Path) -> dict[str, Any]:
    """Read the text settings of ``config.json``.

    Returns:
        Fields of ``SiglipTextConfig``.

    Raises:
        CheckpointError: no config.json, or that of another kind of model.
    """
    text = _read_config(folder, "text")
    return {**text_sizes.from_transformers(text), "output": text.projection_size}


def read_sigmoid(folder: str | Path) -> tuple[float, float]:
    """The factor and the bias of the model's sigmoid: the probability of a pair is sigmoid(factor * cosine + bias).

    Raises:
        CheckpointError: the weights lack them.
    """
    state = read_weights(folder)
    try:
        return float(state["logit_scale"].float().exp()), float(state["logit_bias"])
    except KeyError as error:
        raise CheckpointError(f"the weights in {folder} lack {error}: fetch the folder again") from error


def vision_from_transformers(state: dict[str, Tensor], patch: int) -> dict[str, Tensor]:
    """Rename the vision weights of a whole model or of the vision tower alone to deop's keys.

    Args:
        state: the weights.
        patch: side of a patch in pixels.
    """
    whole = any(key.startswith("vision_model.") for key in state)
    renamed = {
        rename(key.removeprefix("vision_model."), _VISION): value
        for key, value in state.items()
        if (key.startswith("vision_model.") or not whole) and not key.endswith("position_ids")
    }
    if "head.probe" in renamed:
        renamed["head.probe"] = renamed["head.probe"].flatten()
    embedding = renamed.get("patch_embedding.weight")
    if embedding is not None and embedding.ndim == 2 and embedding.shape[1] == 3 * patch**2:
        # A linear layer over patches that were flattened with the colours last.
        renamed["patch_embedding.weight"] = embedding.unflatten(1, (patch, patch, 3)).permute(0, 3, 1, 2).contiguous()
    return pack_qkv(renamed)


def text_from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' ``SiglipTextModel`` in those of a whole model or of the text tower alone."""
    whole = any(key.startswith("text_model.") for key in state)
    return {
        key.removeprefix("text_model."): value
        for key, value in state.items()
        if (key.startswith("text_model.") or not whole) and not re.search(r"position_ids$", key)
    }


def _read_config(folder: Path, tower: str) -> Any:
    """The configuration of a tower, as transformers reads it."""
    import transformers

    path = folder / "config.json"
    kind = str(read_json(path).get("model_type"))
    family = "siglip2" if kind.startswith("siglip2") else "siglip"
    if kind not in (family, f"{family}_{tower}_model"):
        raise CheckpointError(
            f"{path} has model type {kind!r}: expected a SigLIP of transformers ('siglip', 'siglip2')"
        )
    try:
        # It reads the part of a whole model's configuration, without building that of the other tower.
        return getattr(transformers, f"{family.capitalize()}{tower.capitalize()}Config").from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
