"""What a state dict of CLIP in OpenAI's layout does not contain: heads, activation, channel statistics.

open_clip writes it into ``open_clip_config.json`` beside the weights. Without that file it follows from the published
architectures, as far as it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deop.encoders.clip_keys import published_heads
from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import CLIP, Normalization
from deop.networks.loading import list_some

CONFIG = "open_clip_config.json"
"""Name of open_clip's configuration beside its weights."""

OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
"""Entries that only OpenAI's own state dicts have beside the weights."""

_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
# Settings that deop can run with one value only, in addition to those that are off; the first is open_clip's default.
_VISION_ONLY = {"pool_type": ("tok",), "pos_embed_type": ("learnable",), "block_type": ("default", "")}
_TEXT_ONLY = {"pool_type": ("argmax",), "proj_type": ("linear",), "tokenizer_mode": ("clip",)}
_VISION_SIZES = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
_TEXT_SIZES = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
}  # fmt: skip
# Settings of training, of the loss or of parts that are refused by another setting.
_UNUSED = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias",
    "nonscalar_logit_scale", "cast_dtype", "output_dict", "patch_dropout", "output_tokens", "final_ln_after_pool",
    "attn_pooler_queries", "attn_pooler_heads", "pad_id", "eos_id", "norm_kwargs",
}  # fmt: skip
_PREFIXES_OF_UNUSED = ("timm_", "hf_")  # of the details of towers that are refused by their names


@dataclass(frozen=True)
class Architecture:
    """The part of a CLIP's description that its weights do not contain.

    Attributes:
        vision_heads: attention heads of the vision transformer.
        text_heads: attention heads of the text transformer.
        activation: "quick_gelu" or "gelu", of both.
        vision_norm_eps: epsilon of the layer norms of the vision transformer.
        text_norm_eps: the same of the text transformer.
        normalization: normalisation of the pixels.
        sizes: what the weights must agree with: field of ``VisionConfig`` or ``TextConfig`` -> value, by tower.
    """

    vision_heads: int
    text_heads: int
    activation: str
    vision_norm_eps: float = 1e-5
    text_norm_eps: float = 1e-5
    normalization: Normalization = CLIP
    sizes: Mapping[str, Mapping[str, int]] | None = None

    def check(self, tower: str, settings: Mapping[str, Any], origin: str) -> None:
        """Compare with the sizes that were read from the weights.

        Args:
            tower: "vision" or "text".
            settings: fields of ``VisionConfig`` or ``TextConfig``.
            origin: the configuration, for the message.

        Raises:
            CheckpointError: sizes that differ, by name.
        """
        expected = (self.sizes or {}).get(tower, {})
        differing = [
            f"{name} {value} (weights: {settings[name]})" for name, value in expected.items() if settings[name] != value
        ]
        if differing:
            raise CheckpointError(
                f"{origin} is not the configuration of these weights: {tower} {list_some(differing)}. Give that of the "
                "model, with --config FILE (config=... in Python)"
            )


def architecture_of_weights(vision_width: int, text_width: int, keys: Any, activation: str | None) -> Architecture:
    """The architecture of weights without a configuration, as far as it follows from those that were published.

    Args:
        vision_width: channels of the vision transformer.
        text_width: channels of the text transformer.
        keys: the keys of the state dict.
        activation: "quick_gelu" or "gelu"; None: it must follow from the keys.

    Raises:
        CheckpointError: nothing says what the number of heads or the activation is.
    """
    vision_heads, text_heads = published_heads(vision_width, "vision"), published_heads(text_width, "text")
    if activation is None and not any(key in keys for key in OPENAI_KEYS):
        raise CheckpointError(
            "nothing says which activation this CLIP was trained with, and the weights do not tell: add --activation "
            "quick_gelu for those of OpenAI, MetaCLIP and DFN, or --activation gelu for most others of open_clip, such "
            f"as LAION's and DataComp's; or put its {CONFIG} beside the weights"
        )
    return Architecture(vision_heads, text_heads, activation or "quick_gelu")


def read_open_clip_config(path: Path) -> Architecture:
    """Read ``open_clip_config.json``, or a model configuration of open_clip alone.

    Raises:
        CheckpointError: another file, or a model that deop cannot run, naming the settings.
    """
    content = read_json(path)
    model, preprocessing = content.get("model_cfg", content), content.get("preprocess_cfg") or {}
    if not isinstance(model, dict) or "embed_dim" not in model or not isinstance(preprocessing, dict):
        raise CheckpointError(f'{path} is not a configuration of open_clip: it has no "embed_dim". Give another file')
    vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise CheckpointError(f'{path}: "vision_cfg" and "text_cfg" must be JSON objects. Fetch it again')
    problems = _foreign_towers(model, vision, text) or [
        *_unsupported("", model, {}, {}),
        *_unsupported("vision_cfg.", vision, _VISION_SIZES, _VISION_ONLY),
        *_unsupported("text_cfg.", text, _TEXT_SIZES, _TEXT_ONLY),
    ]
    if problems:
        raise CheckpointError(
            f"{path} describes a model that deop cannot run: {list_some(problems)}. Choose a CLIP with a plain vision "
            "transformer and CLIP's own text transformer, such as ViT-B-16 or ViT-H-14"
        )
    try:
        return _architecture(model, _VISION_SIZES | vision, _TEXT_SIZES | text, preprocessing)
    except (TypeError, ValueError, ZeroDivisionError) as error:  # including the errors of Normalization
        raise CheckpointError(f"{path} has a value that does not fit: {error}. Fetch it again") from error


def _foreign_towers(model: dict[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> list[str]:
    problems = []
    if name := vision.get("timm_model_name"):
        problems.append(f"its vision tower is {name!r} of timm")
    if isinstance(vision.get("layers"), list):
        problems.append("its vision tower is a ResNet")
    if name := text.get("hf_model_name"):
        problems.append(f"its text tower is {name!r} of the hub")
    elif (name := text.get("hf_tokenizer_name")) and not str(name).startswith("openai/clip-"):
        problems.append(f"its tokenizer is {name!r} instead of CLIP's")
    if model.get("multimodal_cfg"):
        problems.append("it is a CoCa (multimodal_cfg)")
    return problems


def _unsupported(
    place: str, settings: dict[str, Any], sizes: dict[str, Any], only: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Settings that deop does not know, or that have a value that it cannot run."""
    return [
        f"{place}{name} = {value!r}"
        for name, value in settings.items()
        if value not in _OFF
        and value not in only.get(name, ())
        and name not in sizes
        and name not in _UNUSED
        and not name.startswith(_PREFIXES_OF_UNUSED)
    ]


def _architecture(
    model: dict[str, Any], vision: dict[str, Any], text: dict[str, Any], preprocessing: dict[str, Any]
) -> Architecture:
    width, head_width = int(vision["width"]), int(vision["head_width"])
    if head_width < 1 or width % head_width:
        raise ValueError(f"the width {width} is not a multiple of head_width {head_width}")
    patch = vision["patch_size"]
    sizes = {
        "vision": {
            "width": width,
            "layers": int(vision["layers"]),
            "hidden": int(width * vision["mlp_ratio"]),
            "patch": int(patch[0] if isinstance(patch, list) else patch),
            "output": int(model["embed_dim"]),
        },
        "text": {
            "width": int(text["width"]),
            "layers": int(text["layers"]),
            "hidden": int(text["width"] * text["mlp_ratio"]),
            "context": int(text["context_length"]),
            "tokens": int(text["vocab_size"]),
            "output": int(model["embed_dim"]),
        },
    }
    mean, std = preprocessing.get("mean"), preprocessing.get("std")
    normalization = CLIP
    if mean is not None and std is not None:
        normalization = Normalization(*(tuple(255 * float(value) for value in each) for each in (mean, std)))  # type: ignore[arg-type]
    return Architecture(
        vision_heads=width // head_width,
        text_heads=int(text["heads"]),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        vision_norm_eps=_norm_eps(vision),
        text_norm_eps=_norm_eps(text),
        normalization=normalization,
        sizes=sizes,
    )


def _norm_eps(tower: dict[str, Any]) -> float:
    settings = tower.get("norm_kwargs") or {}
    if unknown := sorted(set(settings) - {"eps"}):
        raise ValueError(f"norm_kwargs has {', '.join(unknown)}, which deop does not know")
    return float(settings.get("eps", 1e-5))
