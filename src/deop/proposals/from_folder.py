"""A proposer from a folder in the layout of transformers, of whatever kind its configuration says."""

from pathlib import Path
from typing import Any

from deop.errors import ProposalError
from deop.files import read_json
from deop.networks.loading import building_model
from deop.proposals import sam, transformers_networks


def proposer_from_folder(folder: Path, name: object = None) -> Any:
    """Load the mask proposer in a folder.

    Args:
        folder: a folder with ``config.json`` and safetensors.
        name: what messages call it; None: the folder.

    Raises:
        CheckpointError: the folder is damaged or incomplete.
        ProposalError: not a mask model.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    with building_model(folder):
        if kind in transformers_networks.CLASSES:
            return transformers_networks.TransformersProposer.from_folder(folder)
        if kind in sam.CLASSES:
            return sam.SamProposer.from_folder(folder)
    known = ", ".join((*transformers_networks.CLASSES, *sam.CLASSES))
    raise ProposalError(
        f"{name or folder} is a model of kind {kind!r}, which does not propose masks: choose one of {known}"
    )
