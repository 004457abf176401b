"""Open-vocabulary semantic segmentation in one pass: photo + names -> one name a pixel.

The public names are imported on first use, so that ``import deop`` costs nothing.
"""

from typing import TYPE_CHECKING, Any

from deop._version import __version__

if TYPE_CHECKING:
    from deop.model import DeOP
    from deop.results.segmentation import Segment, Segmentation
    from deop.text.vocabulary import Vocabulary
    from deop.zoo import load

__all__ = ["DeOP", "Segment", "Segmentation", "Vocabulary", "load", "__version__"]

_HOMES = {
    "DeOP": "deop.model",
    "Segment": "deop.results.segmentation",
    "Segmentation": "deop.results.segmentation",
    "Vocabulary": "deop.text.vocabulary",
    "load": "deop.zoo",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deop' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
