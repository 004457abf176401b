"""Models of transformers as they lie on the hub or in a folder: found, checked and loaded, safetensors only."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop.errors import CheckpointError, MissingDependencyError, ModelNotFoundError
from deop.images import IMAGENET, Normalization
from deop.weights import PICKLE_SUFFIXES, list_some

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WANTED = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
]


def fetch(source: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a model: itself, or the hub's copy on this machine, fetched if need be.

    Args:
        source: a folder, or a hub repo ``owner/name``.
        revision: branch, tag or commit of the repo.
        local_files_only: never ask the hub.

    Raises:
        ModelNotFoundError: no such folder, and no such repo that could be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            str(source), revision=revision, local_files_only=local_files_only, allow_patterns=_WANTED
        )
    except Exception as error:  # the hub client raises many kinds, from name checks to sockets
        raise ModelNotFoundError(
            f"{source} is neither a folder nor a model that could be fetched from the hub ({type(error).__name__}). "
            f"With a network: hf download {source}; then pass the folder or the name again."
        ) from error
    return Path(folder)


def load_network(folder: Path, classes: Mapping[str, str]) -> "PreTrainedModel":
    """Load a transformers model from a folder in the hub's layout, in float32, in evaluation mode.

    Args:
        folder: with config.json and model.safetensors (or shards and their index).
        classes: model types that fit -> name of the class in transformers that reads them.

    Raises:
        CheckpointError: a model of another type, pickled weights only, or incomplete weights.
        MissingDependencyError: transformers is too old for the model.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in classes:
        raise CheckpointError(f"{folder} holds a model of type {kind!r}; this proposer reads {', '.join(classes)}")
    if not any(folder.glob("model*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLE_SUFFIXES)
        raise CheckpointError(
            f"{folder} has no safetensors weights"
            + (f", only pickled ones ({', '.join(pickles)}), which deop never loads" if pickles else "")
            + ". Choose a revision that has them, or convert pickled weights once: "
            f"deop convert {folder / (pickles[0] if pickles else 'pytorch_model.bin')} FOLDER"
        )
    from safetensors import SafetensorError

    try:
        network, report = transformers_class(classes[kind]).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot load {folder}: {error}") from error
    missing = set(report["missing_keys"]) & {name for name, _ in network.named_parameters()}
    if missing:  # transformers would leave them random
        raise CheckpointError(f"the weights in {folder} are incomplete: {list_some(sorted(missing))}")
    return network.eval()


def build_network(config: Mapping[str, Any], classes: Mapping[str, str]) -> "PreTrainedModel":
    """A transformers model with random weights, in evaluation mode.

    Args:
        config: what ``config_of`` gave.
        classes: as ``load_network`` takes them.

    Raises:
        CheckpointError: a configuration of another model.
        MissingDependencyError: transformers is too old for the model.
    """
    kind = str(config.get("model_type"))
    if kind not in classes:
        raise CheckpointError(f"a configuration of model type {kind!r}; this proposer reads {', '.join(classes)}")
    network_class = transformers_class(classes[kind])
    return network_class(network_class.config_class.from_dict(dict(config))).eval()


def config_of(network: "PreTrainedModel") -> dict[str, Any]:
    """The whole configuration of a transformers model, defaults included, as JSON can hold it."""
    return json.loads(network.config.to_json_string(use_diff=False))


def transformers_class(name: str) -> Any:
    """A class of transformers by its name.

    Raises:
        MissingDependencyError: this transformers has no such class, or lacks a library that the class needs.
    """
    import transformers

    try:
        return getattr(transformers, name)
    except (AttributeError, ImportError) as error:
        raise MissingDependencyError(
            f"transformers {transformers.__version__} cannot offer {name} here ({error}). "
            'Update it: pip install -U "transformers>=5.0"'
        ) from error


def read_normalization(folder: Path) -> Normalization:
    """The channel statistics in preprocessor_config.json (0..1 there, 0..255 here); ImageNet's where there are none.

    Raises:
        CheckpointError: the file is not JSON or its statistics are not three numbers.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        entries = read_json(folder / name)
        entries = entries.get("image_processor", entries)
        if entries.get("image_mean") is None or entries.get("image_std") is None:
            continue
        try:
            mean, std = (tuple(255 * float(v) for v in entries[key]) for key in ("image_mean", "image_std"))
            return Normalization(mean, std)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / name}: image_mean and image_std must be three numbers: {error}"
            ) from error
    return IMAGENET


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object on disk.

    Raises:
        CheckpointError: no such file, or something else in it.
    """
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return entries
