"""Fixtures that every test may use: parity files, small models in the hub's layout, test data."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

# pytest-xdist runs a process for each core: one thread each, in those and in the commands that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import pytest
import torch
from safetensors import safe_open

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))


@pytest.fixture(autouse=True)
def no_text_cache(monkeypatch):
    """Tests leave the user's cache of text embeddings alone."""
    monkeypatch.setenv("DEOP_CACHE", "off")


@dataclass
class ParityFile:
    """One file of the original's inputs, weights and outputs."""

    tensors: dict[str, torch.Tensor]
    info: dict

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Every tensor whose key starts with ``prefix``, under the rest of its key."""
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


def parity_folder() -> Path:
    """DEOP_PARITY, or ../shared/parity beside the checkout."""
    chosen = os.environ.get("DEOP_PARITY")
    if chosen and not Path(chosen).is_dir():
        raise FileNotFoundError(f"DEOP_PARITY={chosen} is not a folder")
    return Path(chosen) if chosen else Path(__file__).parents[2] / "shared" / "parity"


@pytest.fixture(scope="session")
def parity():
    """``parity("severance")`` -> ParityFile; skips where the files are absent and DEOP_PARITY is not set."""

    def load(name: str) -> ParityFile:
        path = parity_folder() / f"{name}.safetensors"
        if not path.exists():
            if os.environ.get("DEOP_PARITY"):
                raise FileNotFoundError(path)
            pytest.skip(f"no parity file at {path}; set DEOP_PARITY")
        with safe_open(str(path), "pt") as file:
            info = json.loads((file.metadata() or {}).get("info", "{}"))
            return ParityFile({key: file.get_tensor(key) for key in file.keys()}, info)  # noqa: SIM118

    return load


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real photos (DEOP_DATA, or ../shared/data); skips where it is absent."""
    folder = Path(os.environ.get("DEOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}; set DEOP_DATA")
    return folder


def assert_parity(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that answers without a network, and an empty cache that huggingface_hub takes for its own."""
    from tests.fake_hub import FakeHub

    return FakeHub(tmp_path / "hub", monkeypatch)
