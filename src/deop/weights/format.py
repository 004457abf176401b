"""deop's own format: a folder with config.json, model.safetensors, the tokenizer and a model card.

The config holds everything but the numbers: shapes, settings, preprocessing, licence, source, and the sha256 of the
weights. What does not fit, raises; nothing stays random.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from deop._version import __version__
from deop.config import from_json
from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.encoders.nano import NanoEncoder
from deop.encoders.nano_text import NanoText
from deop.errors import CheckpointError, OutputError
from deop.files import read_json, sha256
from deop.networks.loading import pack, read_weights, stored_once
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Card, Settings

FORMAT = "deop"
VERSION = 1
_KEYS = {
    "format", "version", "deop", "card", "settings", "encoder", "text", "proposer", "anchors", "no_object", "sha256",
}  # fmt: skip


@dataclass
class ModelParts:
    """What a model is made of: the arguments of ``DeOP``."""

    encoder: Any
    text: Any
    proposer: Any
    anchors: AnchorDecoder | None
    no_object: Tensor | None
    settings: Settings
    card: Card


def save_checkpoint(parts: ModelParts, state: dict[str, Tensor], folder: Path, *, packed: bool = False) -> Path:
    """Write a model into a folder, made where it is missing.

    Everything is written beside and then put in its place, the config last: a folder never holds half a model.

    Args:
        parts: of deop's own kinds.
        state: the model's state dict.
        folder: where to.
        packed: int8 and float16, at about a quarter of the size (``weights.pack``).

    Returns:
        The folder.

    Raises:
        OutputError: it cannot be written.
        CheckpointError: a part that the format cannot hold, such as a proposer of the caller's own making.
    """
    from safetensors.torch import save_file

    config = config_of(parts)
    state = stored_once(state)
    if packed:
        state = pack(state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".deop-", dir=folder) as beside:
            written = Path(beside)
            save_file(state, str(written / "model.safetensors"), metadata={"format": "pt"})
            parts.text.save_tokenizer(written)
            (written / "README.md").write_text(_model_card(parts), encoding="utf-8")
            config["sha256"] = sha256(written / "model.safetensors")
            (written / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            for file in sorted(written.iterdir(), key=lambda file: file.name == "config.json"):
                file.replace(folder / file.name)
    except OSError as error:
        raise OutputError(f"cannot write the model to {folder}: {error.strerror or error}") from error
    return folder


def load_checkpoint(folder: Path) -> tuple[ModelParts, dict[str, Tensor]]:
    """Read a model from a folder in deop's own format: its parts, still empty, and its weights.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Raises:
        CheckpointError: another format, unknown keys, missing or damaged weights.
    """
    config = read_config(folder)
    actual = sha256(folder / "model.safetensors")
    if actual != config["sha256"]:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} is damaged or of another model: its sha256 is {actual[:12]}..., the "
            f"config says {str(config['sha256'])[:12]}.... Fetch or convert it again"
        )
    anchors, no_object = config["anchors"], config["no_object"]
    if no_object is not None and (not isinstance(no_object, int) or no_object < 1):
        raise CheckpointError(f'"no_object" of the config is {no_object!r}: expected its number of channels, or null')
    encoder = _build(config["encoder"], (CLIPVision, NanoEncoder), "encoder")
    parts = ModelParts(
        encoder=encoder,
        text=_build(config["text"], (CLIPText, NanoText), "text encoder", folder),
        proposer=None if config["proposer"] is None else _proposer(config["proposer"], encoder),
        anchors=None if anchors is None else AnchorDecoder(from_json(AnchorConfig, anchors, "the anchor decoder")),
        no_object=None if no_object is None else torch.zeros(no_object),
        settings=Settings.from_json(config["settings"]),
        card=from_json(Card, config["card"], "the card"),
    )
    return parts, read_weights(folder)


def config_of(parts: ModelParts) -> dict[str, Any]:
    """A model's config.json, without the sha256 of its weights.

    Raises:
        CheckpointError: a part of a kind that the format cannot hold.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "deop": __version__,
        "card": asdict(parts.card),
        "settings": asdict(parts.settings),
        "encoder": _part(parts.encoder),
        "text": _part(parts.text),
        "proposer": None if parts.proposer is None else _part(parts.proposer),
        "anchors": None if parts.anchors is None else asdict(parts.anchors.config),
        "no_object": None if parts.no_object is None else parts.no_object.numel(),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder in deop's own format, checked for unknown and missing keys."""
    path = folder / "config.json"
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise CheckpointError(f'{path} is not of deop\'s format ("format": "{FORMAT}")')
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is of version {config.get('version')}, this deop ({__version__}) reads {VERSION}: update deop"
        )
    complaints = [f"{key} is not known" for key in sorted(set(config) - _KEYS)]
    complaints += [f"{key} is missing" for key in sorted(_KEYS - set(config))]
    if complaints:
        raise CheckpointError(f"{path}: {'; '.join(complaints)}")
    return config


def _part(part: object) -> dict[str, Any]:
    if not isinstance(part, nn.Module) or not hasattr(part, "config_dict") or not hasattr(part, "kind"):
        raise CheckpointError(f"deop's format cannot hold a {type(part).__name__}: it has no kind and no config_dict")
    values: Any = part
    return {"kind": values.kind, "config": values.config_dict()}


def _build(part: dict[str, Any], kinds: Sequence[Any], what: str, *more: Any) -> Any:
    """A part with random weights, of the kind that the config names."""
    known = {kind.kind: kind for kind in kinds}
    if not isinstance(part, dict) or set(part) != {"kind", "config"} or not isinstance(part["config"], dict):
        raise CheckpointError(f'the {what} of the config is {str(part)[:60]}: expected {{"kind": ..., "config": ...}}')
    if part["kind"] not in known:
        raise CheckpointError(f"unknown kind of {what} {part['kind']!r}: update deop")
    return known[part["kind"]].from_config(part["config"], *more)


def _proposer(part: dict[str, Any], encoder: Any) -> Any:
    from deop.proposals.maskformer import MaskFormer
    from deop.proposals.nano import NanoProposer
    from deop.proposals.sam import SamProposer
    from deop.proposals.transformers_networks import TransformersProposer

    proposer = _build(part, (MaskFormer, TransformersProposer, SamProposer, NanoProposer), "proposer")
    if isinstance(proposer, NanoProposer):
        if not isinstance(encoder, NanoEncoder):
            raise CheckpointError(
                f"the nano proposer shares the trunk of the nano encoder; this is a {type(encoder).__name__}"
            )
        proposer.share_trunk(encoder.trunk)
    return proposer


def _model_card(parts: ModelParts) -> str:
    card = parts.card
    return f"""---
library_name: deop
pipeline_tag: image-segmentation
tags: [open-vocabulary, semantic-segmentation, deop]
---

# {card.name or "A deop model"}

Open-vocabulary segmentation in one pass: a photo and a list of names in, one name a pixel out.

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
