"""The errors that deop raises on purpose. Each message names the input, what is wrong with it, and the remedy."""


class DeopError(Exception):
    """Base class of every error that deop raises on purpose."""


class ImageError(DeopError, ValueError):
    """A photo or a saved result cannot be read, or has a form that cannot be used."""


class VocabularyError(DeopError, ValueError):
    """Class names cannot be used: they are empty, blank or repeated."""


class ProposalError(DeopError, ValueError):
    """Masks do not fit the photo, or a source of masks cannot be used."""


class CheckpointError(DeopError, ValueError):
    """Weights or their configuration are damaged, incomplete, or belong to another model."""


class ModelNotFoundError(DeopError, LookupError):
    """A model is not on this machine and cannot be downloaded."""


class SettingError(DeopError, ValueError):
    """An option is unknown, or has a value that is not allowed."""


class ResourceError(DeopError, MemoryError):
    """A photo does not fit in the memory of the device."""


class OutputError(DeopError, OSError):
    """A result cannot be written to the requested place."""


class MissingDependencyError(DeopError, ImportError):
    """An optional library is required but not installed."""


class DataError(DeopError, ValueError):
    """A data set is incomplete, damaged, or has another layout."""


class TrainingError(DeopError, RuntimeError):
    """A training run cannot continue: its loss is not finite, or its checkpoint cannot be written or does not fit."""
