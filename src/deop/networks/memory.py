"""Photos that do not fit in memory: recognising torch's errors, and naming the photo and the remedy instead."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deop.errors import ResourceError

if TYPE_CHECKING:
    import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch, NumPy or ONNX Runtime report by this error that memory cannot be allocated."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # The CPU, MPS and cuBLAS report it by plain RuntimeErrors.
    signs = ["out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"]
    # ONNX Runtime's exceptions have no common base class.
    if type(error).__module__.startswith("onnxruntime"):
        signs += ["Failed to allocate memory", "bad_alloc", "bad allocation"]
    elif not isinstance(error, RuntimeError):
        return False
    return any(sign in str(error) for sign in signs)


def does_not_fit(photo: str, device: "torch.device | str") -> ResourceError:
    """The error for a photo that does not fit in the memory of a device.

    Args:
        photo: its path, number or size.
        device: where the model is.
    """
    if str(device).startswith("cpu"):
        return ResourceError(f"{photo} does not fit in memory: resize it, or use a machine with more memory")
    return ResourceError(
        f'{photo} does not fit in the memory of {device}: resize it, or use device="cpu" (--device cpu)'
    )


@contextmanager
def naming_photo(photo: str, device: "torch.device | str") -> Iterator[None]:
    """Name a photo in place of torch's own error that memory cannot be allocated.

    Raises:
        ResourceError: the work inside does not fit in memory.
    """
    try:
        yield
        return
    except Exception as error:
        if isinstance(error, ResourceError) or not is_out_of_memory(error):
            raise
    # Not in the handler, where the error still keeps tensors alive.
    free_memory()
    raise does_not_fit(photo, device)


def free_memory() -> None:
    """Return the memory of a failed attempt to the device."""
    gc.collect()
    torch = sys.modules.get("torch")  # not loaded: no device
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
