"""Vision and text encoders from a folder in the layout of transformers, of whatever kind its configuration says."""

from pathlib import Path
from typing import Any

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.siglip import SiglipVision
from deop.encoders.siglip_keys import read_sigmoid
from deop.encoders.siglip_text import SiglipText
from deop.encoders.tips import TipsVision
from deop.encoders.tips_keys import read_tips_temperature
from deop.encoders.tips_text import TipsText
from deop.errors import CheckpointError
from deop.files import read_json
from deop.named_models import TOWERS


def vision_from_folder(folder: str | Path) -> Any:
    """Load the vision encoder in a folder, as a module with the protocol ``VisionEncoder``.

    Args:
        folder: a folder with ``config.json`` and safetensors.

    Raises:
        CheckpointError: an unknown ``model_type``, or a folder that is damaged or incomplete.
    """
    kind = _kind_of(folder)
    if kind in ("clip", "clip_vision_model", "metaclip_2", "metaclip_2_vision_model"):
        return CLIPVision.from_folder(folder)
    if kind in ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model"):
        return SiglipVision.from_folder(folder)
    if kind in ("tipsv2", "tipsv2_vision_model"):
        return TipsVision.from_folder(folder)
    raise CheckpointError(f"{folder} is a model of kind {kind!r}: deop loads the vision encoders of {_KNOWN}")


def text_from_folder(folder: str | Path) -> Any:
    """Load the text encoder in a folder with its tokenizer, as a module with the protocol ``TextEncoder``.

    Args:
        folder: as in ``vision_from_folder``.

    Raises:
        CheckpointError: as in ``vision_from_folder``, or no tokenizer.
    """
    kind = _kind_of(folder)
    if kind in ("clip", "clip_text_model", "metaclip_2", "metaclip_2_text_model"):
        return CLIPText.from_folder(folder)
    if kind in ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model"):
        return SiglipText.from_folder(folder)
    if kind in ("tipsv2", "tipsv2_text_model"):
        return TipsText.from_folder(folder)
    raise CheckpointError(f"{folder} is a model of kind {kind!r}: deop loads the text encoders of {_KNOWN}")


def scoring_from_folder(folder: str | Path) -> dict[str, Any]:
    """How the model in a folder scores pairs of images and texts, where that differs from the defaults.

    Args:
        folder: as in ``vision_from_folder``.

    Returns:
        Fields of ``Settings``: for a SigLIP the factor and the bias of its sigmoid, for a TIPSv2 its factor.

    Raises:
        CheckpointError: the weights lack them.
    """
    if _kind_of(folder) == "tipsv2":
        return {"temperature": read_tips_temperature(folder)}
    if _kind_of(folder) not in ("siglip", "siglip2"):
        return {}
    factor, bias = read_sigmoid(folder)
    return {"temperature": factor, "logit_bias": bias}


_KNOWN = ", ".join(repr(kind) for kind in TOWERS)


def _kind_of(folder: str | Path) -> str:
    return str(read_json(Path(folder) / "config.json").get("model_type"))
