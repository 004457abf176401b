"""The hash follows every change of the weights, and is not recomputed without one."""

import pytest
import torch
from torch import nn

from deop.networks import state_hash
from deop.networks.state_hash import StateHash


def in_place(module):
    with torch.no_grad():
        module.weight.mul_(2)


def single_value(module):
    with torch.no_grad():
        module.weight[20, 30] += 1


def in_inference_mode(module):
    with torch.inference_mode():
        module.weight.mul_(2)


def through_data(module):
    module.weight.data.mul_(2)


def load(module):
    module.load_state_dict({key: value + 1 for key, value in module.state_dict().items()})


def fused_optimizer(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    module(torch.ones(40)).sum().backward()
    optimizer.step()  # torch does not count this change


CHANGES = [
    in_place,
    single_value,
    in_inference_mode,
    through_data,
    load,
    fused_optimizer,
    nn.Module.half,
    nn.Module.double,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes(change):
    torch.manual_seed(0)
    module, hashed = nn.Linear(40, 30), StateHash()
    before = hashed.digest(module.state_dict())
    assert hashed.digest(module.state_dict()) == before
    change(module)
    assert hashed.digest(module.state_dict()) != before


@pytest.mark.parametrize("change", [in_inference_mode, load])
def test_inference_tensors(change):
    """They have no counter of changes; a single value in 1200 is changed where no sample is taken."""
    torch.manual_seed(0)
    with torch.inference_mode():
        module = nn.Linear(40, 30)
        hashed = StateHash()
        before = hashed.digest(module.state_dict())
        assert hashed.digest(module.state_dict()) == before
        module.weight[20, 31] += 1
        after = hashed.digest(module.state_dict())
        assert after != before
        change(module)
        assert hashed.digest(module.state_dict()) not in (before, after)


def test_prefix_and_key():
    module, hashed = nn.Linear(2, 2), StateHash()
    first = hashed.digest(module.state_dict(), key=1, prefix=[b"a"])
    assert hashed.digest(module.state_dict(), key=2, prefix=[b"b"]) != first
    assert hashed.digest(module.state_dict(), key=1, prefix=[b"a"]) == first


def test_unchanged_weights_are_not_hashed_again(monkeypatch):
    module, hashed = nn.Linear(100, 100), StateHash()
    first = hashed.digest(module.state_dict())
    monkeypatch.setattr(state_hash.hashlib, "sha256", None)
    assert hashed.digest(module.state_dict()) == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equal_weights_have_equal_hashes(dtype):
    module, copy = nn.Linear(4, 4).to(dtype), nn.Linear(4, 4).to(dtype)
    copy.load_state_dict(module.state_dict())
    assert StateHash().digest(module.state_dict()) == StateHash().digest(copy.state_dict())
    assert StateHash().digest({}) == StateHash().digest({})
