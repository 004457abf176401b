"""Choosing the device and the precision of a model. torch is imported only when a function is called."""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from deop.errors import CheckpointError, SettingError

if TYPE_CHECKING:
    import torch


# Names in torch.cpu.get_capabilities() and in /proc/cpuinfo, of Intel, AMD and ARM. With AVX-512 alone, bfloat16 is
# emulated too, at 1.7 times the time of float32.
_INSTRUCTIONS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "fp16_arith", "asimdhp"},
}


def choose_device(choice: "str | torch.device | None") -> "torch.device":
    """The device that the caller chose; None or "auto": a GPU if there is one, else the CPU.

    Raises:
        SettingError: an unknown device, or one that this machine does not have.
    """
    import torch

    if choice is None or str(choice) == "auto":
        for kind in ("cuda", "mps"):
            if getattr(torch, kind).is_available():
                return torch.device(kind)
        return torch.device("cpu")
    if str(choice) in ("webgpu", "coreml", "directml"):
        raise SettingError(
            f"device {str(choice)!r} is one of ONNX Runtime, and this model runs with torch: load a model with ONNX "
            "graphs, such as nano or a folder that `deop export` wrote, or choose cpu, cuda, cuda:1 or mps"
        )
    try:
        device = torch.device(choice)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"device {str(choice)!r} cannot be used on this machine: {reason}. Choose cpu, cuda, cuda:1 or mps"
        ) from error
    return device


def choose_dtype(choice: "str | torch.dtype | None", device: "torch.device | None" = None) -> "torch.dtype":
    """The precision that the caller chose; None: float32.

    Args:
        choice: "float32", "bfloat16", "float16" or the dtype of torch.
        device: where the model computes. On a CPU without instructions for the precision, the result is float32, with
            a warning: emulated, the small model takes eight times as long (docs/speed.md, "Half precision on a CPU").

    Raises:
        SettingError: an unknown precision.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = "float32" if choice is None else str(choice).removeprefix("torch.")
    if name not in known:
        raise SettingError(f"unknown dtype {str(choice)!r}: choose {', '.join(known)}, or int8 on a CPU")
    if name in _INSTRUCTIONS and device is not None and device.type == "cpu" and not cpu_computes_in(name):
        warnings.warn(
            f"this CPU has no instructions for {name}, which would be many times slower: computing in float32",
            UserWarning,
            stacklevel=2,
        )
        return torch.float32
    return known[name]


def cpu_computes_in(name: str) -> bool:
    """Whether this CPU multiplies matrices of "bfloat16" or "float16" with instructions of its own.

    Apple's CPUs have the instructions, but torch's builds for macOS do not use them.
    """
    import torch

    return (
        sys.platform != "darwin" and torch.backends.mkldnn.is_available() and bool(_INSTRUCTIONS[name] & _cpu_flags())
    )


def _cpu_flags() -> set[str]:
    """Instruction sets of this CPU; empty if they cannot be found out."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, present in torch.cpu.get_capabilities().items() if present is True}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())


def check_finite(values: "torch.Tensor", dtype: "torch.dtype") -> None:
    """Check what a model computed for a photo: numbers that are not finite would give it names at random.

    Where the dtype is not float16, values on a GPU are not checked, because the host would have to wait for them.

    Args:
        values: the embeddings of regions.
        dtype: dtype of the weights.

    Raises:
        SettingError: an overflow in float16.
        CheckpointError: the weights are damaged.
    """
    import torch

    if (dtype is not torch.float16 and values.device.type != "cpu") or bool(values.isfinite().all()):
        return
    if dtype is torch.float16:
        raise SettingError(
            "the values inside this model are too large for float16: choose bfloat16 or float32 (--dtype, dtype=...)"
        )
    raise CheckpointError("this model computes values that are not finite: its weights are damaged. Fetch it again")
