"""Resizing of parts of maps, against torch's resizing of whole maps."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.labelling.resampling import resize_weights


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 50), st.data())
def test_resize_weights(source, target, data):
    first = data.draw(st.integers(0, target - 1))
    last = data.draw(st.integers(first + 1, target))
    maps = torch.randn(2, 3, source)
    whole = F.interpolate(maps, size=target, mode="linear", align_corners=False)
    cells, weights = resize_weights(source, target, first, last)
    torch.testing.assert_close(maps[..., cells] @ torch.from_numpy(weights).T, whole[..., first:last])
