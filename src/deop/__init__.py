"""Open-vocabulary semantic segmentation in one pass: photo and class names in, one name per pixel out.

>>> import deop
>>> deop.Vocabulary.parse("cat, sofa|couch, wall").names
('cat', 'sofa', 'wall')

Public names are imported on first use, so ``import deop`` loads no other library.
"""

from deop._version import __version__

TYPE_CHECKING = False  # as in typing, whose import takes longer than everything else here
if TYPE_CHECKING:
    from deop.bank.bank import Bank, load_bank
    from deop.bank.learning import learn
    from deop.bank.marks import Box, Click
    from deop.model import DeOP
    from deop.results.segmentation import Segmentation
    from deop.results.segments import Segment
    from deop.text.vocabulary import Vocabulary
    from deop.tiles.segmenting import segment_tiles
    from deop.zoo import load

__all__ = [
    "Bank",
    "Box",
    "Click",
    "DeOP",
    "Segment",
    "Segmentation",
    "Vocabulary",
    "learn",
    "load",
    "load_bank",
    "segment_tiles",
    "__version__",
]

_MODULES = {
    "Bank": "deop.bank.bank",
    "Box": "deop.bank.marks",
    "Click": "deop.bank.marks",
    "learn": "deop.bank.learning",
    "load_bank": "deop.bank.bank",
    "DeOP": "deop.model",
    "Segment": "deop.results.segments",
    "Segmentation": "deop.results.segmentation",
    "Vocabulary": "deop.text.vocabulary",
    "load": "deop.zoo",
    "segment_tiles": "deop.tiles.segmenting",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'deop' has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        from deop.dependencies import explained

        raise explained(error, f"deop.{name}") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
