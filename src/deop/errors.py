"""The errors of deop: each says what was wrong, with which input, and what to do about it."""


class DeopError(Exception):
    """Base of every error that deop raises on purpose."""


class ImageError(DeopError, ValueError):
    """A photo cannot be read or has a form that cannot be used."""


class VocabularyError(DeopError, ValueError):
    """A list of names cannot be used: empty, blank or repeated names."""


class ProposalError(DeopError, ValueError):
    """Masks do not fit the photo, or a mask source cannot be used."""


class CheckpointError(DeopError, ValueError):
    """Weights or their configuration are damaged, incomplete or of another model."""


class ModelNotFoundError(DeopError, LookupError):
    """A model is neither on this machine nor can it be fetched."""


class SettingError(DeopError, ValueError):
    """An option has a value that deop does not know."""


class OutputError(DeopError, OSError):
    """A result cannot be written where it was asked for."""


class MissingDependencyError(DeopError, ImportError):
    """An optional library is needed for what was asked."""


class DataError(DeopError, ValueError):
    """A data set is incomplete, damaged or of another form."""


class TrainingError(DeopError, RuntimeError):
    """A run cannot go on: its loss is not finite, or its checkpoint cannot be written or does not fit."""
