"""The errors that deop raises on purpose. Each message names the input, what is wrong with it, and the remedy."""

from typing import ClassVar

EXIT_CODES = {
    0: "success",
    1: "failure, for example a photo that cannot be read (others are processed)",
    2: "wrong usage: an option, class names or deop.toml",
    3: "a result cannot be written",
    4: "a model cannot be loaded, or a library is not installed",
    130: "interrupted (Ctrl-C)",
}
"""What the exit codes of the command line mean. The attribute ``exit_code`` of each error is one of them."""


LONGEST_MESSAGE = 2000
"""Characters of the longest message of an error. A value of a stranger's file may have millions."""


class DeopError(Exception):
    """Base class of every error that deop raises on purpose.

    Attributes:
        exit_code: the exit code of the command line, a key of ``EXIT_CODES``.
    """

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        message = super().__str__()
        if len(message) <= LONGEST_MESSAGE:
            return message
        half = LONGEST_MESSAGE // 2 - 2
        return f"{message[:half]}...{message[-half:]}"


class ImageError(DeopError, ValueError):
    """A photo or a saved result cannot be read, or has a form that cannot be used."""


class VocabularyError(DeopError, ValueError):
    """Class names cannot be used: they are empty, blank or repeated."""

    exit_code = 2


class ProposalError(DeopError, ValueError):
    """Masks do not fit the photo, or a source of masks cannot be used."""


class CheckpointError(DeopError, ValueError):
    """Weights or their configuration are damaged, incomplete, or belong to another model."""

    exit_code = 4


class ModelNotFoundError(DeopError, LookupError):
    """A model is not on this machine and cannot be downloaded."""

    exit_code = 4


class SettingError(DeopError, ValueError):
    """An option is unknown, or has a value that is not allowed."""

    exit_code = 2


class NotFoundInPhotoError(DeopError, LookupError):
    """A picture was requested of a name that no pixel of the photo has."""


class ResourceError(DeopError, MemoryError):
    """A photo does not fit in the memory of the device."""


class OutputError(DeopError, OSError):
    """A result cannot be written to the requested place."""

    exit_code = 3


class MissingDependencyError(DeopError, ImportError):
    """An optional library is required but not installed."""

    exit_code = 4


class DataError(DeopError, ValueError):
    """A data set is incomplete, damaged, or has another layout."""


class TrainingError(DeopError, RuntimeError):
    """A training run cannot continue: its loss is not finite, or its checkpoint cannot be written or does not fit."""
