"""The engine for exported models: numpy, pillow and onnxruntime. Never imports torch.

>>> from deop.runtime import Model
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deop.runtime.config import RuntimeConfig, read_runtime_config
    from deop.runtime.model import EncodedPhoto, Model

__all__ = ["EncodedPhoto", "Model", "RuntimeConfig", "read_runtime_config"]

_MODULES = {
    "EncodedPhoto": "model", "Model": "model", "RuntimeConfig": "config", "read_runtime_config": "config",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # On first use, so that reading a config does not import what computes.
    if name not in _MODULES:
        raise AttributeError(f"module 'deop.runtime' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"deop.runtime.{_MODULES[name]}"), name)
