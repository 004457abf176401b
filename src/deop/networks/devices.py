"""Choosing the device and the precision of a model. torch is imported only when a function is called."""

from typing import TYPE_CHECKING

from deop.errors import SettingError

if TYPE_CHECKING:
    import torch


def choose_device(choice: "str | torch.device | None") -> "torch.device":
    """The device that the caller chose; None: a GPU if there is one, else the CPU.

    Raises:
        SettingError: an unknown device, or one that this machine does not have.
    """
    import torch

    if choice is None:
        for kind in ("cuda", "mps"):
            if getattr(torch, kind).is_available():
                return torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(choice)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"device {str(choice)!r} cannot be used on this machine: {reason}. Choose cpu, cuda, cuda:1 or mps"
        ) from error
    return device


def choose_dtype(choice: "str | torch.dtype | None") -> "torch.dtype":
    """The precision that the caller chose; None: float32.

    Raises:
        SettingError: an unknown precision.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    dtype = known.get("float32" if choice is None else str(choice).removeprefix("torch."))
    if dtype is None:
        raise SettingError(f"unknown dtype {str(choice)!r}: choose {', '.join(known)}, or int8 on a CPU")
    return dtype
