"""Half precision on CPUs with and without instructions for it."""

import warnings

import numpy as np
import pytest
import torch

from deop.errors import CheckpointError, SettingError
from deop.networks import devices
from deop.networks.devices import choose_dtype, cpu_computes_in
from deop.zoo import load

CPU = torch.device("cpu")
SAPPHIRE_RAPIDS = {"avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile"}
COOPER_LAKE = {"avx2", "avx512_f", "avx512_bf16"}
SKYLAKE = {"avx2", "avx512_f"}
GRAVITON_3 = {"neon", "bf16", "fp16_arith"}


@pytest.fixture
def processor(monkeypatch):
    """Set the instruction sets that are found."""

    def has(flags, platform="linux"):
        monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)
        monkeypatch.setattr(devices.sys, "platform", platform)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)

    return has


@pytest.mark.parametrize(
    ("flags", "platform", "bfloat16", "float16"),
    [
        (SAPPHIRE_RAPIDS, "linux", True, True),
        (COOPER_LAKE, "linux", True, False),
        (SKYLAKE, "linux", False, False),
        (GRAVITON_3, "linux", True, True),
        (GRAVITON_3, "darwin", False, False),
        (set(), "win32", False, False),
    ],
)
def test_the_instructions_decide(flags, platform, bfloat16, float16, processor):
    processor(flags, platform)
    assert (cpu_computes_in("bfloat16"), cpu_computes_in("float16")) == (bfloat16, float16)


def test_without_the_instructions_a_cpu_computes_in_float32(processor):
    processor(SKYLAKE)
    for name in ("bfloat16", "float16"):
        for choice in (name, getattr(torch, name)):
            with pytest.warns(UserWarning, match=f"no instructions for {name}.* computing in float32"):
                assert choose_dtype(choice, CPU) is torch.float32
    with pytest.warns(UserWarning, match="float16"):
        model = load("nano", engine="torch", device="cpu", dtype="float16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    photo = np.zeros((60, 80, 3), np.uint8)
    assert model.segment(photo, ["cat", "sky"]).label_map.shape == (60, 80)


def test_no_warning_where_the_choice_is_followed(processor):
    processor(SKYLAKE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_dtype("float32", CPU) is choose_dtype(None, CPU) is torch.float32
        assert choose_dtype("float16", torch.device("cuda")) is torch.float16
        assert choose_dtype("bfloat16") is torch.bfloat16
        processor(SAPPHIRE_RAPIDS)
        assert choose_dtype("float16", CPU) is torch.float16


def test_flags_are_those_of_the_processor(monkeypatch):
    """Two sources agree: torch's list, and that of Linux where torch is older."""
    names = set().union(*devices._INSTRUCTIONS.values()) - {"fp16_arith", "asimdhp"}
    expected = devices._cpu_flags() & names
    if not hasattr(torch.cpu, "get_capabilities"):
        return
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert devices._cpu_flags() & names == expected


@pytest.mark.parametrize(
    ("dtype", "error", "reason"),
    [("float16", SettingError, "too large for float16: choose bfloat16"), ("float32", CheckpointError, "are damaged")],
)
def test_values_that_are_not_finite_are_not_turned_into_names(dtype, error, reason, tiny_clip, monkeypatch):
    """65504 is the largest number of float16: two blocks that each add 60,000 exceed it."""
    monkeypatch.setattr(devices, "cpu_computes_in", lambda name: True)
    model = load(tiny_clip, device="cpu", dtype=dtype)
    photo, masks = np.zeros((50, 70, 3), np.uint8), np.arange(50 * 70).reshape(50, 70) // 1000
    assert model.segment(photo, "cat, dog", masks=masks).segments
    with torch.no_grad():
        for block in model.encoder.blocks[:2]:
            block.down.bias.fill_(60000 if dtype == "float16" else float("nan"))
    with pytest.raises(error, match=reason):
        model.segment(photo, "cat, dog", masks=masks)
