"""Fixtures that every test may use: parity files, small models in the hub's layout, test data.

This file works without torch, for the tests that run on the base install alone (tests/light).
"""

import json
import lzma
import os
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

# pytest-xdist runs a process for each core: one thread each, in those and in the commands that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
# As the deop command does: on a busy machine, waiting threads that spin make tests many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.fixtures.small_sets import write_small_sets

if TYPE_CHECKING:
    import torch

if find_spec("torch"):
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# A shell script starts background jobs with SIGINT ignored, and commands that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "data_folder" in item.fixturenames:
            item.add_marker(pytest.mark.data)
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))


NO_GPU = "no GPU"
"""The reason of tests that need a GPU."""


def pytest_terminal_summary(terminalreporter):
    """Say which tests were skipped and why. All but GPU tests and slow ones are named as a problem (.ci/run fails)."""
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")]
    if count := sum(reason.startswith("slow: ") for reason in reasons):
        terminalreporter.line(f"skipped: {count} slow tests (run with --runslow)")
    for reason in sorted({reason for reason in reasons if reason != NO_GPU and not reason.startswith("slow: ")}):
        places = [
            report.nodeid or str(report.longrepr[0])
            for report, why in zip(terminalreporter.getreports("skipped"), reasons, strict=True)
            if why == reason
        ]
        terminalreporter.line(f"problem: {len(places)} skipped, {reason}: {', '.join(places)}", red=True)
    if count := reasons.count(NO_GPU):
        terminalreporter.line(f"skipped: {count} GPU tests, because this machine has no GPU")


@pytest.fixture(autouse=True)
def no_text_cache(monkeypatch):
    """Tests leave the user's cache of text embeddings alone."""
    monkeypatch.setenv("DEOP_CACHE", "off")


FIXTURES = Path(__file__).parent / "fixtures"


@dataclass
class ParityFile:
    """One file of the original's inputs, weights and outputs, whole or cut by tests/fixtures/cut_parity.py."""

    tensors: "dict[str, torch.Tensor]"
    info: dict

    def __getitem__(self, key: str) -> "torch.Tensor":
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def below(self, prefix: str) -> "dict[str, torch.Tensor]":
        """Every tensor whose key starts with ``prefix``, under the rest of its key."""
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    def check(self, key: str, actual: "torch.Tensor", tolerance: float = 2e-5) -> None:
        """Compare with a stored tensor, of which a cut file may have every n-th row and column only."""
        stride = self.info.get("stride", {}).get(key, 1)
        assert_parity(actual[..., ::stride, ::stride] if stride > 1 else actual, self[key], tolerance)


def read_parity(name: str) -> ParityFile:
    """The full file in DEOP_PARITY, if that is set, or else the cut one in tests/fixtures/parity."""
    folder = os.environ.get("DEOP_PARITY")
    return _read_full(Path(folder), name) if folder else _read_cut("parity", name)


def read_training_free(name: str) -> ParityFile:
    """A file of published training-free attentions: the full one in DEOP_TRAINING_FREE, or else the cut one.

    Without the variable, the full files are read from ../shared/training-free if they are there.
    """
    folder = Path(os.environ.get("DEOP_TRAINING_FREE") or FIXTURES.parents[2] / "shared" / "training-free")
    if (folder / f"{name}.safetensors").is_file() or "DEOP_TRAINING_FREE" in os.environ:
        return _read_full(folder, name)
    return read_cut_training_free(name)


def read_cut_training_free(name: str) -> ParityFile:
    """A cut file of published training-free attentions."""
    return _read_cut("training-free", name)


def _read_full(folder: Path, name: str) -> ParityFile:
    from safetensors import safe_open

    with safe_open(str(folder / f"{name}.safetensors"), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    return ParityFile(tensors, json.loads(metadata.get("info", "{}")))


def _read_cut(folder: str, name: str) -> ParityFile:
    from tests.fixtures.cut_parity import SUFFIX, unpack

    tensors, metadata = unpack((FIXTURES / folder / f"{name}{SUFFIX}").read_bytes())
    return ParityFile(tensors, json.loads(metadata.get("info", "{}")))


def checkpoint_keys() -> str:
    """The keys and shapes of the original's checkpoints at full size, one per line."""
    folder = os.environ.get("DEOP_PARITY")
    if folder:
        return (Path(folder) / "checkpoint_keys.txt").read_text(encoding="utf-8")
    return lzma.decompress((FIXTURES / "parity" / "checkpoint_keys.txt.xz").read_bytes()).decode()


@pytest.fixture(scope="session")
def parity():
    """``parity("severance")`` -> ParityFile, a copy for each call."""
    return read_parity


@pytest.fixture(scope="session", params=["full", "cut"])
def training_free(request):
    """``training_free("sclip")`` -> ParityFile of published training-free attentions, full and cut."""
    if request.param == "cut":
        return read_cut_training_free
    return read_training_free


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """The directory of labelled photos in DEOP_DATA, if that is set, or else small sets of the same form."""
    folder = os.environ.get("DEOP_DATA")
    return Path(folder) if folder else write_small_sets(tmp_path_factory.mktemp("data"))


def assert_parity(actual: "torch.Tensor", expected: "torch.Tensor", tolerance: float = 2e-5) -> None:
    """Equal shapes, and no entry further away than ``tolerance`` of the largest magnitude."""
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    scale = expected.abs().max().clamp_min(1e-12)
    worst = ((actual - expected).abs().max() / scale).item() if expected.numel() else 0.0
    assert worst <= tolerance, f"worst deviation {worst:.2e} of the largest magnitude"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """A small random CLIP with its own byte-pair vocabulary, written in the hub's layout."""
    from tests.tiny import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("tiny-clip"))


@pytest.fixture(scope="session")
def tiny_dino(tmp_path_factory) -> Path:
    """A small random vision transformer of DINO's layout, with patches of 8 pixels."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-dino")
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that answers without a network, and an empty cache that huggingface_hub takes for its own."""
    from tests.fake_hub import FakeHub

    return FakeHub(tmp_path / "hub", monkeypatch)
