"""All targets by name; the module of a target is imported when it is asked for."""

from importlib import import_module

from fuzz.target import Target

MODULES = {
    "photos": ("photo", "mask-image", "mask-array"),
    "texts": ("names", "classes-json", "deop-toml", "config-json"),
    "models": ("safetensors", "own-config", "name-table", "bank", "onnx"),
    "archives": ("saved-result", "label-file", "tar"),
    "requests": ("request", "question"),
}
"""The targets of each module of this package."""

NAMES = tuple(name for names in MODULES.values() for name in names)
"""All targets."""


def load(name: str) -> Target:
    """A target.

    >>> load("names").name
    'names'
    """
    module = next(module for module, names in MODULES.items() if name in names)
    targets: tuple[Target, ...] = import_module(f"fuzz.{module}").TARGETS
    return next(target for target in targets if target.name == name)
