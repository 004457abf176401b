"""Devices of ONNX Runtime: which execution provider computes, and the package that brings it."""

import os
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deop.errors import MissingDependencyError, SettingError

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Name of the execution provider of each kind of device."""

_AUTOMATIC = ("cuda", "directml")
# Only with packages that someone has installed for their sake. CoreML is part of every onnxruntime for macOS, but was
# not measured; it compiles the model again for each new size of photo.

REMEDIES = {
    "cpu": "pip install onnxruntime",
    "cuda": "pip uninstall onnxruntime, then pip install onnxruntime-gpu, which has it for NVIDIA GPUs on Linux and "
    "Windows",
    "webgpu": "pip install onnxruntime-ep-webgpu, a plug-in for any GPU (it needs onnxruntime 1.24.4 or later and, on "
    "Linux, libvulkan.so.1)",
    "coreml": "the package onnxruntime has it on macOS only",
    "directml": "pip uninstall onnxruntime, then pip install onnxruntime-directml, which has it for any GPU on Windows",
}
"""How to install each of them."""

_WEBGPU_PLUGIN = "onnxruntime_ep_webgpu"


@dataclass(frozen=True)
class Provider:
    """An execution provider that is installed.

    Attributes:
        device: the kind of device, a key of ``PROVIDERS``, or with an index, "cuda:1".
        options: options of the provider.
        automatic: whether the CPU may take its place if it does not start.
    """

    device: str
    options: dict[str, str] = field(default_factory=dict)
    automatic: bool = False

    @property
    def kind(self) -> str:
        """The kind of device."""
        return self.device.partition(":")[0]

    @property
    def name(self) -> str:
        """The name in ONNX Runtime."""
        return PROVIDERS[self.kind]


def import_onnxruntime() -> ModuleType:
    """The library, without its telemetry.

    Some releases write an id of the machine to the home directory when they are imported, and report to Microsoft how
    they are used. The variable ORT_DISABLE_TELEMETRY, which stays as it is where it is set, prevents both.

    Raises:
        MissingDependencyError: it is not installed, or cannot be loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        if sys.platform == "win32" and "DLL" in str(error):
            raise MissingDependencyError(
                "onnxruntime cannot be loaded: install Microsoft's Visual C++ Redistributable (x64)"
            ) from error
        raise MissingDependencyError("exported models need onnxruntime: pip install onnxruntime") from error
    module: ModuleType = onnxruntime
    return module


def is_installed(kind: str) -> bool:
    """Whether this machine's onnxruntime has the execution provider of a kind of device; the device may be missing."""
    library = import_onnxruntime()
    if PROVIDERS[kind] in library.get_available_providers():
        return True
    return kind == "webgpu" and _webgpu_plugin() is not None


def choose_provider(device: str | None) -> Provider:
    """The execution provider that computes.

    Args:
        device: a key of ``PROVIDERS``; "cuda:1" is the second GPU. "auto" or None: the GPU of CUDA or DirectML if the
            installed onnxruntime has one of them, else the CPU.

    Raises:
        SettingError: an unknown device.
        MissingDependencyError: the execution provider is not installed; the message names the package that brings it.
    """
    if device is None or device == "auto":
        kind = next((kind for kind in _AUTOMATIC if is_installed(kind)), "cpu")
        return Provider(kind, _options(kind, ""), automatic=kind != "cpu")
    kind, _, index = device.partition(":")
    if kind not in PROVIDERS or (index and (kind not in ("cuda", "directml") or not index.isdecimal())):
        raise SettingError(
            f"unknown device {device!r}: choose one of auto, {', '.join(PROVIDERS)}; cuda:1 is the second GPU"
        )
    if not is_installed(kind):
        available = [known for known in PROVIDERS if is_installed(known)]
        raise MissingDependencyError(
            f"the installed onnxruntime computes on {' and '.join(available)} only. For {kind}: {REMEDIES[kind]}"
        )
    return Provider(device, _options(kind, index))


def create_session(
    graph: bytes | str, options: "onnxruntime.SessionOptions", provider: Provider
) -> "onnxruntime.InferenceSession":
    """A session on a device.

    Args:
        graph: the content of an ONNX file, or its path.
        options: options of the session; changed by this call.
        provider: where it computes.

    Raises:
        SettingError: the device cannot be used.
        Exception: whatever ONNX Runtime raises for a graph that it cannot load.
    """
    library: Any = import_onnxruntime()
    if provider.kind == "cuda" and hasattr(library, "preload_dlls"):
        library.preload_dlls()  # CUDA and cuDNN from the packages of NVIDIA or from torch, if they are not in the path
    if provider.kind == "webgpu" and provider.name not in library.get_available_providers():
        _add_webgpu(library, options)
        return library.InferenceSession(graph, options)
    chosen: list[Any] = [(provider.name, provider.options)] if provider.options else [provider.name]
    session = library.InferenceSession(graph, options, providers=[*chosen, *([CPU] if provider.kind != "cpu" else [])])
    if provider.name not in session.get_providers() and not provider.automatic:
        raise SettingError(
            f"device {provider.device!r} cannot be used on this machine: its driver or libraries are missing or too "
            "old. Choose cpu"
        )
    return session


def _options(kind: str, index: str) -> dict[str, str]:
    options = {"device_id": index} if index else {}
    # TensorFloat-32 rounds to 10 bits, which changes labels.
    return options | {"use_tf32": "0"} if kind == "cuda" else options


def _webgpu_plugin() -> ModuleType | None:
    """The Python package of the WebGPU plug-in, or None."""
    try:
        return __import__(_WEBGPU_PLUGIN)
    except ImportError:
        return None


def _add_webgpu(library: Any, options: "onnxruntime.SessionOptions") -> None:
    """Add the device of the WebGPU plug-in to the options of a session.

    Raises:
        SettingError: the plug-in does not start, or finds no GPU.
    """
    plugin: Any = _webgpu_plugin()
    name = plugin.get_ep_name()

    def devices() -> list[Any]:
        return [device for device in library.get_ep_devices() if device.ep_name == name]

    try:
        if not devices():
            library.register_execution_provider_library("webgpu", plugin.get_library_path())
        found = devices()
    except Exception as error:  # onnxruntime's errors have no common base class
        raise SettingError(f"device 'webgpu' cannot be used: {str(error)[:300]}. Choose cpu") from error
    if not found:
        raise SettingError("device 'webgpu' cannot be used: no GPU was found. Choose cpu")
    options.add_provider_for_devices(found[:1], {})
