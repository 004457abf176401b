"""Resizing of parts of masks, against torch's resizing of whole masks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.networks.resampling import double, interpolate_rows, resize_tokens, source_rows, to_patches


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 50), st.integers(1, 50), st.data())
def test_rows_equal_those_of_the_whole_result(rows, columns, height, width, data):
    maps = torch.randn(3, rows, columns)
    first = data.draw(st.integers(0, height - 1))
    last = data.draw(st.integers(first + 1, height))
    whole = F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(interpolate_rows(maps, (height, width), first, last), whole[:, first:last])
    low, high = source_rows(rows, height, first, last)
    part = interpolate_rows(maps[:, low:high], (height, width), first, last, source=(low, rows))
    torch.testing.assert_close(part, whole[:, first:last])


def test_resizing_to_patches_keeps_positions():
    """A linear ramp in y keeps its values at the patch centres, if neither stride nor patch divides the image."""
    rows = torch.arange(32.0)  # stride 4: cell r is centred at pixel 4 r + 2
    ramp = ((4 * rows + 2) / 128)[None, None, :, None].expand(1, 1, 32, 32)
    resized = to_patches(ramp, (128, 128), 14)
    assert resized.shape[-2:] == (10, 10)
    centres = (torch.arange(10.0) * 14 + 7) / 128
    torch.testing.assert_close(resized[0, 0, :9, 3], centres[:9])


@pytest.mark.parametrize("patch", [14, 16, 32])
def test_antialiasing_keeps_small_masks(patch):
    maps = torch.zeros(1, 1, 32, 32)
    maps[0, 0, 8, 8] = 1  # one cell of 4 x 4 pixels, away from every patch centre of 32
    assert to_patches(maps, (128, 128), patch, antialias=True).sum() > 0
    assert to_patches(maps, (128, 128), 32).sum() == 0


def test_no_proposals():
    assert to_patches(torch.zeros(2, 0, 8, 8), (30, 30), 16).shape == (2, 0, 2, 2)
    assert interpolate_rows(torch.zeros(0, 8, 8), (30, 31), 3, 9).shape == (0, 6, 31)


@pytest.mark.parametrize("exporting", [False, True])
@pytest.mark.parametrize("size", [(10, 14), (5, 7), (9, 30)])
def test_resizing_tokens(exporting, size, monkeypatch):
    tokens = torch.randn(2, 35, 6)
    maps = tokens.mT.reshape(2, 6, 5, 7)
    expected = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    torch.testing.assert_close(resize_tokens(tokens, (5, 7), size), expected.permute(0, 2, 3, 1))


def test_doubling_a_map():
    maps = torch.randn(2, 3, 4, 5)
    expected = F.interpolate(maps, size=(8, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(double(maps, (8, 10)), expected)
    assert double(maps, (4, 5)) is maps
