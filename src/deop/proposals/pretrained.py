"""Loading of transformers models from folders in the hub's layout; safetensors only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop.errors import CheckpointError, MissingDependencyError
from deop.files import PICKLE_SUFFIXES, convert_command, read_json
from deop.networks.loading import list_some

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_network(folder: Path, classes: Mapping[str, str]) -> "PreTrainedModel":
    """Load a transformers model from a folder in the hub's layout, in float32, in evaluation mode.

    Args:
        folder: a folder with config.json and model.safetensors (or shards and their index).
        classes: supported model types -> name of the class in transformers that loads them.

    Raises:
        CheckpointError: another type of model, or weights that are pickled, damaged or incomplete.
        MissingDependencyError: transformers is too old for the model.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in classes:
        raise CheckpointError(
            f"{folder} contains a model of type {kind!r}: this proposer supports {', '.join(classes)}"
        )
    if not any(folder.glob("model*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLE_SUFFIXES)
        raise CheckpointError(
            f"{folder} has no safetensors weights"
            + (f", only pickled ones ({', '.join(pickles)}), which deop never loads" if pickles else "")
            + f". Choose a revision that has them, or convert pickled weights once: {convert_command(folder)}"
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
    if missing:  # transformers would initialise them at random
        raise CheckpointError(
            f"the weights in {folder} are incomplete: {list_some(sorted(missing))} missing. Fetch the folder again."
        )
    return network.eval()


def build_network(config: Mapping[str, Any], classes: Mapping[str, str]) -> "PreTrainedModel":
    """A transformers model with random weights, in evaluation mode.

    Args:
        config: a configuration from ``config_of``.
        classes: as in ``load_network``.

    Raises:
        CheckpointError: a configuration of another type of model.
        MissingDependencyError: transformers is too old for the model.
    """
    kind = str(config.get("model_type"))
    if kind not in classes:
        raise CheckpointError(f"the configuration has model type {kind!r}: this proposer supports {', '.join(classes)}")
    network_class = transformers_class(classes[kind])
    return network_class(network_class.config_class.from_dict(dict(config))).eval()


def config_of(network: "PreTrainedModel") -> dict[str, Any]:
    """The configuration of a transformers model including defaults, as JSON-compatible values."""
    return json.loads(network.config.to_json_string(use_diff=False))


def transformers_class(name: str) -> Any:
    """A class of transformers by name.

    Raises:
        MissingDependencyError: the installed transformers has no such class, or a library that it needs is missing.
    """
    import transformers

    try:
        return getattr(transformers, name)
    except (AttributeError, ImportError) as error:
        raise MissingDependencyError(
            f"transformers {transformers.__version__} does not provide {name} ({error}). "
            'Update it: pip install -U "transformers>=5.0"'
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Disable transformers' progress bar: the weights are local files."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
