"""Pooling and masks of cells in forms that can be exported, against torch's own and against loops."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.networks.resampling import grid_of, inside_images, pool_cells


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_pooling_by_products_equals_adaptive_pooling(rows, columns, height, width):
    maps = torch.randn(2, 3, height, width)
    torch.testing.assert_close(pool_cells(maps, (rows, columns)), F.adaptive_avg_pool2d(maps, (rows, columns)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 96)), min_size=1, max_size=3), st.sampled_from([8, 14, 16])
)
def test_patches_inside_images(sizes, patch):
    grid = grid_of((64, 96), patch)
    inside = inside_images(sizes, grid, patch, torch.device("cpu"))
    expected = torch.zeros(len(sizes), *grid, dtype=torch.bool)
    for index, size in enumerate(sizes):
        rows, columns = grid_of(size, patch)
        expected[index, :rows, :columns] = True
    assert expected.all() if inside is None else torch.equal(inside, expected.flatten(1))
    tensor = inside_images(torch.tensor(sizes), grid, patch, torch.device("cpu"))
    assert torch.equal(tensor, expected.flatten(1))
