"""Attention: the form that is exported, against torch's fused kernel."""

import pytest
import torch

from deop.networks.attention import attend


@pytest.mark.parametrize("kind", ["none", "keys", "added"])
def test_exported_form_equals_the_fused_kernel(kind, monkeypatch):
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = {"none": None, "keys": torch.arange(7) % 3 > 0, "added": torch.randn(2, 1, 5, 7)}[kind]
    if kind == "keys":
        mask = mask.expand(2, 1, 1, 7)
    fused = attend(query, key, value, mask)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(attend(query, key, value, mask), fused)
