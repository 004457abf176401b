"""Which engine runs a model: ONNX Runtime where the folder has graphs and nothing needs torch, else torch."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deop.dependencies import require
from deop.errors import CheckpointError, SettingError
from deop.files import existing_folder, read_json
from deop.runtime.providers import PROVIDERS, choose_provider, is_installed

if TYPE_CHECKING:
    from deop.runtime.config import OnnxParts

ENGINES = ("onnx", "torch")
"""Values of the argument ``engine``."""

GIVEN = "given"
"""In place of a proposer: the caller passes masks with each photo."""


def has_torch() -> bool:
    """Whether torch is installed. It is not imported."""
    return importlib.util.find_spec("torch") is not None


def torch_remedy() -> str:
    """How to use torch, which has every option, for the end of a message."""
    installed = "" if has_torch() else ', after pip install "deop[torch]"'
    return f'use the torch engine (engine="torch", --engine torch){installed}'


def engine_for(
    model: str,
    severance: object,
    anchors: object,
    classifier: object,
    *,
    proxy: object = None,
    windows: object = None,
    partition: object = None,
    prior: float | None = None,
) -> str | None:
    """The engine that has all values of these options: torch, if it can be used; None: any engine.

    Args:
        model: as in ``deop.load``. Torch cannot be used for exported folders.
        severance: as in ``encode``.
        anchors: as in ``encode``.
        classifier: as in ``encode``.
        proxy: as in ``deop.load``.
        windows: as in ``Settings``; None: as the model says, as for all others.
        partition: as in ``Settings``.
        prior: as in ``Settings``.
    """
    given = (severance, anchors, proxy, windows, partition, prior or None)
    if (classifier == "one-pass" and all(value is None for value in given)) or not has_torch():
        return None
    from deop.runtime.config import FORMAT

    folder = existing_folder(model)
    if folder and (folder / "config.json").is_file() and read_json(folder / "config.json").get("format") == FORMAT:
        return None
    return "torch"


def check_engine(engine: str | None) -> None:
    """Refuse an unknown engine.

    Raises:
        SettingError: naming it.
    """
    if engine is not None and (not isinstance(engine, str) or engine not in ENGINES):
        raise SettingError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}")


def choose_engine(
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    engine: str | None,
    *,
    proposer: object = None,
    proxy: object = None,
    device: str | None = None,
    dtype: str | None = None,
) -> str:
    """The engine for a folder.

    Args:
        name: the name that the caller gave, for messages.
        folder: the model folder.
        config: the content of its ``config.json``.
        engine: what the caller asks for; None: ONNX Runtime if the folder has graphs and no argument needs torch.
        proposer: as in ``deop.load``.
        proxy: as in ``deop.load``.
        device: as in ``deop.load``, as a string.
        dtype: as in ``deop.load``, as the name of a precision.

    Returns:
        "onnx" or "torch".

    Raises:
        SettingError: ``engine`` cannot do what the other arguments ask for.
        CheckpointError: the folder is not for ``engine``.
        MissingDependencyError: torch is needed and not installed.
    """
    from deop.runtime.config import FORMAT, has_graphs, read_runtime_config  # which imports numpy

    exported = config.get("format") == FORMAT
    if engine == "torch":
        if exported:
            raise CheckpointError(
                f"{name} holds graphs of ONNX Runtime only: omit the engine, or load the model that was exported"
            )
        return engine
    if not has_graphs(config):
        if engine == "onnx":
            raise CheckpointError(
                f"{name} has no ONNX graphs: export it with `deop export {name} FOLDER` and load that folder, or "
                f"{torch_remedy()}"
            )
        return "torch"
    reason = _reason_for_torch(read_runtime_config(folder).onnx, proposer, proxy, device, dtype)
    if reason is None:
        return "onnx"
    if engine == "onnx" or exported:
        remedy = "load the model that was exported" if exported else torch_remedy()
        raise SettingError(f"the model {name} has no ONNX graph for {reason}: omit it, or {remedy}")
    if not has_torch() and device is not None and device.partition(":")[0] in PROVIDERS:
        choose_provider(device)  # names the package that brings the device
    require(f"{reason} with this model", "torch")
    return "torch"


def _reason_for_torch(
    parts: "OnnxParts", proposer: object, proxy: object, device: str | None, dtype: str | None
) -> str | None:
    """The argument that ONNX Runtime cannot fulfil, or None."""
    if dtype is not None and dtype not in parts.graphs:
        return f"dtype {dtype!r}"
    if proposer == GIVEN and parts.graphs_of(dtype).regions is None:
        return "given masks"
    if proposer is not None and proposer != GIVEN:
        return f"the proposer {str(proposer)!r}"
    if proxy is not None:
        return f"the proxy {str(proxy)!r}"
    if device is None or device == "auto":
        return None
    kind = device.partition(":")[0]
    if kind not in PROVIDERS or (kind == "cuda" and not is_installed(kind)):
        return f"device {device!r}"
    return None
