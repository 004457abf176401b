"""Devices of ONNX Runtime: what is chosen, and what a missing one is answered with."""

import os
import subprocess
import sys
import types

import pytest

import deop
from deop.errors import MissingDependencyError, SettingError
from deop.runtime import providers
from deop.runtime.providers import Provider, choose_provider, create_session


class Session:
    """A session as ONNX Runtime creates it, with those of the requested providers that start."""

    def __init__(self, graph, options, providers=()):
        self.providers = [name[0] if isinstance(name, tuple) else name for name in providers]
        self.requested = list(providers)

    def get_providers(self):
        return [name for name in self.providers if name not in Library.broken] or ["CPUExecutionProvider"]


class Library:
    """A stand-in for the module onnxruntime."""

    broken: tuple[str, ...] = ()

    def __init__(self, *available):
        self.available = [*available, "CPUExecutionProvider"]
        self.registered, self.preloaded = [], 0
        self.InferenceSession = Session

    def get_available_providers(self):
        return self.available

    def preload_dlls(self):
        self.preloaded += 1

    def register_execution_provider_library(self, name, path):
        self.registered.append((name, path))

    def get_ep_devices(self):
        return [types.SimpleNamespace(ep_name="WebGPU")] if self.registered and "gpu" in self.registered[0][1] else []


@pytest.fixture
def install(monkeypatch):
    """``install("CUDAExecutionProvider")`` is an onnxruntime with these providers."""

    def use(*available):
        library = Library(*available)
        monkeypatch.setattr(providers, "import_onnxruntime", lambda: library)
        return library

    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", None)
    return use


CUDA, DIRECTML = "CUDAExecutionProvider", "DmlExecutionProvider"


def test_what_is_chosen_automatically(install):
    for available, device in (
        ((), "cpu"),
        (("AzureExecutionProvider",), "cpu"),
        (("CoreMLExecutionProvider",), "cpu"),
        ((CUDA,), "cuda"),
        ((DIRECTML,), "directml"),
        (("TensorrtExecutionProvider", CUDA), "cuda"),
    ):
        install(*available)
        for choice in (None, "auto"):
            assert choose_provider(choice).device == device
        assert choose_provider("cpu").device == "cpu"


@pytest.mark.parametrize(
    ("device", "remedy"),
    [
        ("cuda", "pip install onnxruntime-gpu"),
        ("cuda:1", "pip install onnxruntime-gpu"),
        ("directml", "pip install onnxruntime-directml"),
        ("webgpu", "pip install onnxruntime-ep-webgpu"),
        ("coreml", "on macOS only"),
    ],
)
def test_a_missing_provider_is_named_with_its_package(install, device, remedy):
    install()
    with pytest.raises(MissingDependencyError, match=f"computes on cpu only. For {device.partition(':')[0]}.*{remedy}"):
        choose_provider(device)


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "webgpu:0", "cuda:x", "cuda:-1", "", "mps", "cuda:"])
def test_unknown_devices(install, device):
    install(CUDA)
    if device == "cuda:":
        assert choose_provider(device).kind == "cuda"
        return
    with pytest.raises(SettingError, match="unknown device"):
        choose_provider(device)


def test_options_of_cuda(install):
    library = install(CUDA)
    session = create_session(b"", None, choose_provider("cuda:1"))
    assert session.requested == [(CUDA, {"device_id": "1", "use_tf32": "0"}), "CPUExecutionProvider"]
    assert library.preloaded == 1


def test_a_device_that_does_not_start(install, monkeypatch):
    """A GPU that was asked for is not replaced without a word; one that was found automatically is."""
    install(CUDA)
    monkeypatch.setattr(Library, "broken", (CUDA,))
    with pytest.raises(SettingError, match="device 'cuda' cannot be used on this machine"):
        create_session(b"", None, choose_provider("cuda"))
    assert create_session(b"", None, choose_provider(None)).get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("path", ["gpu.so", "nothing.so"])
def test_the_webgpu_plugin(install, monkeypatch, path):
    library = install()
    plugin = types.SimpleNamespace(get_ep_name=lambda: "WebGPU", get_library_path=lambda: path)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", plugin)
    added = []
    options = types.SimpleNamespace(add_provider_for_devices=lambda devices, more: added.extend(devices))
    provider = choose_provider("webgpu")
    if path == "gpu.so":
        for _ in range(2):
            create_session(b"", options, provider)
        assert [device.ep_name for device in added] == ["WebGPU"] * 2
        assert library.registered == [("webgpu", "gpu.so")], "registered once"
    else:
        with pytest.raises(SettingError, match="no GPU was found"):
            create_session(b"", options, provider)
    assert choose_provider(None).device == "cpu", "only where it is asked for"


def test_a_build_with_webgpu_needs_no_plugin(install):
    install("WebGpuExecutionProvider")
    assert create_session(b"", None, choose_provider("webgpu")).providers[0] == "WebGpuExecutionProvider"


def test_a_model_says_where_it_computes(monkeypatch):
    """CUDA is listed as available wherever its package is installed, also without a GPU."""
    real = providers.create_session
    monkeypatch.setattr("deop.runtime.model.choose_provider", lambda device: Provider("cuda", automatic=device is None))
    monkeypatch.setattr("deop.runtime.session.create_session", lambda *parts: real(*parts[:2], Provider("cpu")))  # type: ignore[call-arg]
    assert deop.load("nano").device == "cpu"


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        deop.load("nano")


CREATE = """
import sys
from deop.runtime.session import session_options
from deop.runtime.providers import import_onnxruntime
import_onnxruntime().InferenceSession(sys.argv[1], session_options(1), providers=["CPUExecutionProvider"])
"""


def test_nothing_is_reported_about_its_use(tmp_path):
    """ONNX Runtime 1.32 writes an id of the machine and events for its maker, unless it is told not to."""
    from deop.zoo import NANO

    folders = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for name in folders:
        (tmp_path / name).mkdir()
        environment[name] = str(tmp_path / name)
    command = [sys.executable, "-B", "-c", CREATE, str(NANO / "encode.onnx")]
    subprocess.run(command, check=True, env=environment)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
