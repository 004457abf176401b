"""Loading of transformers models from folders in the hub's layout; safetensors only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop.errors import CheckpointError, MissingDependencyError
from deop.files import PICKLE_SUFFIXES, convert_command, read_json
from deop.networks.loading import check_cached, list_some

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_network(folder: Path, classes: Mapping[str, str], *, unused: str = "") -> "PreTrainedModel":
    """Load a transformers model from a folder in the hub's layout, in float32, in evaluation mode.

    Args:
        folder: a folder with config.json and model.safetensors (or shards and their index).
        classes: supported model types -> name of the class in transformers that loads them.
        unused: start of the names of weights that the caller does not use, and which may therefore be missing.

    Raises:
        CheckpointError: another type of model, or weights that are pickled, damaged or incomplete.
        MissingDependencyError: transformers is too old for the model.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in classes:
        raise CheckpointError(f"{folder} contains a model of type {kind!r}: supported here are {', '.join(classes)}")
    if not any(folder.glob("model*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLE_SUFFIXES)
        raise CheckpointError(
            f"{folder} has no safetensors weights"
            + (f", only pickled ones ({', '.join(pickles)}), which deop never loads" if pickles else "")
            + f". Choose a revision that has them, or convert pickled weights once: {convert_command(folder)}"
        )
    _check_references(read_json(folder / "config.json"), folder)
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} has adapter_config.json, with which transformers loads another model instead: merge the adapter "
            "into the weights, or delete the file"
        )
    check_cached(folder)
    from safetensors import SafetensorError

    try:
        with _quietly():
            network, report = transformers_class(classes[kind]).from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot load {folder}: {error}") from error
    # transformers would leave them random. Tensors that it does not use belong to other parts of a larger network.
    needed = {name for name, _ in network.named_parameters() if not unused or not name.startswith(unused)}
    needed |= {name for name, _ in network.named_buffers() if name.endswith(("running_mean", "running_var"))}
    if missing := set(report["missing_keys"]) & needed:
        raise CheckpointError(
            f"the weights in {folder} are incomplete: {list_some(sorted(missing))} missing. Fetch the folder again."
        )
    if mismatched := [
        f"{key} has shape {tuple(shape)}, expected {tuple(expected)}"
        for key, shape, expected in sorted(report["mismatched_keys"])
    ]:
        raise CheckpointError(f"the weights in {folder} do not fit: {list_some(mismatched)}")
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
        raise CheckpointError(f"the configuration has model type {kind!r}: supported here are {', '.join(classes)}")
    _check_references(config, "the configuration")
    network_class = transformers_class(classes[kind])
    return network_class(network_class.config_class.from_dict(dict(config))).eval()


def _check_references(config: Mapping[str, Any], origin: object) -> None:
    """Refuse a configuration that names another model, which transformers would look up on the hub or in a folder.

    Raises:
        CheckpointError: it does.
    """
    if config.get("backbone_config") is None and config.get("backbone"):
        raise CheckpointError(
            f"{origin} names another model as its backbone ({str(config['backbone'])[:80]!r}), which deop does not "
            'fetch: it must describe the backbone itself, in "backbone_config"'
        )


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


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local folder, without running code from it.

    Raises:
        ValueError: it needs code from its folder; or else any error of transformers and tokenizers, also Exception.
    """
    from transformers import AutoTokenizer

    try:
        # By default transformers asks on the terminal whether to run the code.
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ValueError("it needs code from its folder, which deop never runs") from None
        raise


@contextmanager
def _quietly() -> Iterator[None]:
    """Disable transformers' progress bar, since the weights are local files, and its report, which deop checks."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
