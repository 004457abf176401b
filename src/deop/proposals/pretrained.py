"""Models of transformers in a folder of the hub's layout: checked and loaded, safetensors only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop.errors import CheckpointError, MissingDependencyError
from deop.files import PICKLE_SUFFIXES, read_json
from deop.networks.loading import list_some

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        with _quietly():
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


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' own progress bar: the weights are on this machine."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
