"""deop's own format: a folder with config.json, model.safetensors, the tokenizer and a model card.

The config holds shapes, settings, preprocessing, licence, source, and the SHA-256 of the weights. Loading is strict: a
key or a tensor that does not fit is an error, and no weight stays random.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop._version import __version__
from deop.config import from_json
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.nano import NanoEncoder
from deop.encoders.nano_text import NanoText
from deop.encoders.siglip import SiglipVision
from deop.encoders.siglip_text import SiglipText
from deop.encoders.tips import TipsVision
from deop.encoders.tips_text import TipsText
from deop.errors import CheckpointError
from deop.files import read_json, sha256, writing_folder
from deop.networks.loading import building_model, pack, read_weights, stored_once
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.runtime.config import MODEL_FORMAT as FORMAT
from deop.runtime.config import MODEL_KEYS
from deop.runtime.config import MODEL_VERSION as VERSION
from deop.settings import Card, Settings

_GRAPHS = "onnx"
"""Optional section about ONNX graphs beside the weights, which only ``deop.runtime`` reads."""


@dataclass
class ModelParts:
    """The parts of a model: the arguments of ``DeOP``."""

    encoder: Any
    text: Any
    proposer: Any
    anchors: AnchorDecoder | None
    no_object: Tensor | None
    settings: Settings
    card: Card


def save_model_folder(parts: ModelParts, state: dict[str, Tensor], folder: Path, *, packed: bool = False) -> Path:
    """Write a model into a folder.

    Args:
        parts: the parts of the model, all of kinds that the format knows.
        state: the state dict of the model.
        folder: where to write; created if it is missing.
        packed: store int8 and float16, at about a quarter of the size (``networks.loading.pack``).

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be written.
        CheckpointError: a part of a kind that the format does not know, such as a proposer that the caller wrote.
    """
    from safetensors.torch import save_file

    config = config_of(parts)
    state = stored_once(state)
    if packed:
        state = pack(state)
    with writing_folder(folder) as beside:
        save_file(state, str(beside / "model.safetensors"), metadata={"format": "pt"})
        parts.text.save_tokenizer(beside)
        (beside / "README.md").write_text(_model_card(parts), encoding="utf-8")
        config["sha256"] = sha256(beside / "model.safetensors")
        (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def load_model_folder(folder: Path) -> tuple[ModelParts, dict[str, Tensor]]:
    """Read a model from a folder in deop's own format.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Returns:
        The parts with random weights, and the state dict to load into the model that is built from them.

    Raises:
        CheckpointError: another format, unknown or missing keys, missing or damaged weights.
    """
    config = read_config(folder)
    actual = sha256(folder / "model.safetensors")
    if actual != config["sha256"]:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is damaged or belongs to another model: its SHA-256 is {actual[:12]}..., "
            f"and the config says {str(config['sha256'])[:12]}.... Fetch or convert it again"
        )
    anchors, no_object = config["anchors"], config["no_object"]
    if no_object is not None and (not isinstance(no_object, int) or isinstance(no_object, bool) or no_object < 1):
        raise CheckpointError(f'"no_object" of the config is {no_object!r}: expected its number of channels, or null')
    with building_model(folder):
        encoder = _build(config["encoder"], (CLIPVision, SiglipVision, TipsVision, NanoEncoder), "encoder")
        text = _build(config["text"], (CLIPText, SiglipText, TipsText, NanoText), "text encoder", folder)
        if no_object not in (None, text.width):
            raise CheckpointError(f'"no_object" of the config is {no_object}: expected {text.width} channels, or null')
        parts = ModelParts(
            encoder=encoder,
            text=text,
            proposer=None if config["proposer"] is None else _build_proposer(config["proposer"], encoder),
            anchors=None if anchors is None else AnchorDecoder(from_json(AnchorConfig, anchors, "the anchor decoder")),
            no_object=None if no_object is None else torch.zeros(no_object),
            settings=from_json(Settings, config["settings"], "the model"),
            card=from_json(Card, config["card"], "the card"),
        )
    return parts, read_weights(folder)


def config_of(parts: ModelParts) -> dict[str, Any]:
    """The config.json of a model, without the SHA-256 of its weights.

    Raises:
        CheckpointError: a part of a kind that the format does not know.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "deop": __version__,
        "card": asdict(parts.card),
        "settings": asdict(parts.settings),
        "encoder": _describe(parts.encoder),
        "text": _describe(parts.text),
        "proposer": None if parts.proposer is None else _describe(parts.proposer),
        "anchors": None if parts.anchors is None else asdict(parts.anchors.config),
        "no_object": None if parts.no_object is None else parts.no_object.numel(),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder in deop's own format.

    Raises:
        CheckpointError: another format or version, unknown or missing keys.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not of deop\'s format ("format": "{FORMAT}"): give another folder')
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {config.get('version')}, and deop {__version__} reads version {VERSION}: update deop"
        )
    problems = [f"{key} is not known" for key in sorted(set(config) - MODEL_KEYS - {_GRAPHS})]
    problems += [f"{key} is missing" for key in sorted(MODEL_KEYS - set(config))]
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems)}. Fetch or convert the folder again")
    return config


def _describe(part: object) -> dict[str, Any]:
    if not isinstance(part, nn.Module) or not hasattr(part, "config_dict") or not hasattr(part, "kind"):
        raise CheckpointError(
            f"deop's format cannot store a {type(part).__name__}: it has no kind and no config_dict. Save the model "
            "without it"
        )
    described: Any = part
    return {"kind": described.kind, "config": described.config_dict()}


def _build(part: dict[str, Any], classes: Sequence[Any], what: str, *more: Any) -> Any:
    """A part with random weights, of the kind that the config names."""
    if not isinstance(part, dict) or set(part) != {"kind", "config"} or not isinstance(part["config"], dict):
        raise CheckpointError(f'the {what} of the config is {str(part)[:60]}: expected {{"kind": ..., "config": ...}}')
    for known in classes:
        if known.kind == part["kind"]:
            return known.from_config(part["config"], *more)
    raise CheckpointError(f"unknown kind of {what} {part['kind']!r}: update deop")


def _build_proposer(part: dict[str, Any], encoder: Any) -> Any:
    from deop.proposals.maskformer import MaskFormer
    from deop.proposals.nano import NanoProposer
    from deop.proposals.sam import SamProposer
    from deop.proposals.transformers_networks import TransformersProposer

    proposer = _build(part, (MaskFormer, TransformersProposer, SamProposer, NanoProposer), "proposer")
    if isinstance(proposer, NanoProposer):
        if not isinstance(encoder, NanoEncoder):
            raise CheckpointError(
                f"the nano proposer shares the trunk of the nano encoder, and the encoder is a {type(encoder).__name__}"
            )
        proposer.share_trunk(encoder.trunk)
    return proposer


def _model_card(parts: ModelParts) -> str:
    """The README.md of the folder, in the form of the hub's model cards."""
    card = parts.card
    return f"""---
library_name: deop
pipeline_tag: image-segmentation
tags: [open-vocabulary, semantic-segmentation, deop]
---

# {card.name or "A deop model"}

Open-vocabulary segmentation in one pass: takes a photo and a list of names, and gives every pixel one of them.

```python
import deop

model = deop.load("FOLDER_OR_REPO")
model.segment("photo.jpg", ["cat", "sofa|couch", "wall"]).save("out.png")
```

| | |
|---|---|
| licence of the weights | {card.license} |
| source | {card.source or "not recorded"} |
| trained on | {card.training_data or "not recorded"} |
| scores | {card.scores or "not recorded"} |
| encoder | {type(parts.encoder).__name__}, severance `{parts.settings.severance.kind}` |
| proposals | {type(parts.proposer).__name__ if parts.proposer is not None else "given with each call"} |
| anchors | {parts.settings.anchors} |
"""
