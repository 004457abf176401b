import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deop.errors import SettingError
from deop.images.preprocessing import Resize
from deop.tiles.plan import WINDOWS, check_tiles, parse_tiles, plan_tiles
from deop.tiles.request import auto_size, coarse_side

sizes = st.integers(64, 300).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


@given(st.integers(1, 2000), sizes, st.sampled_from(WINDOWS))
def test_every_pixel_is_covered_and_weights_add_up_to_one(length, tile, window):
    size, overlap = tile
    side = plan_tiles((length, 2000), size, overlap, window).rows
    total = np.zeros(length)
    for share in side.shares(0, length):
        assert share.weights.min() >= 0
        total += share.weights
    np.testing.assert_allclose(total, 1, rtol=1e-5)


@given(st.integers(1, 2000), sizes)
def test_neighbours_overlap_by_what_was_requested_and_end_with_the_image(length, tile):
    size, overlap = tile
    side = plan_tiles((length, 5000), size, overlap).rows
    assert side.starts[0] == 0
    assert side.starts[-1] + side.tile == max(length, size)
    assert all(after - before <= size - overlap for before, after in zip(side.starts, side.starts[1:], strict=False))


@given(st.integers(100, 1000), sizes, st.integers(0, 900), st.integers(1, 90))
def test_shares_of_a_part_are_those_of_the_whole_side(length, tile, first, count):
    side = plan_tiles((length, 2000), *tile).rows
    first = min(first, length - 1)
    last = min(first + count, length)
    whole = {share.number: share.weights[first:last] for share in side.shares(0, length)}
    for share in side.shares(first, last):
        np.testing.assert_array_equal(share.weights, whole[share.number])


def test_a_window_does_not_fall_at_the_edges_of_the_image():
    side = plan_tiles((1000, 1000), 400, 100).rows
    first, last = side.shares(0, 1000)[0].weights, side.shares(0, 1000)[-1].weights
    assert (first[:200] == 1).all()
    assert (last[-200:] == 1).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_weights_are_smooth_where_a_tile_begins(window):
    """The second tile starts with almost no weight, so that there is no seam."""
    side = plan_tiles((1000, 1000), 400, 100, window).rows
    second = side.shares(0, 1000)[1].weights
    assert second[side.starts[1]] < 1e-3 or window == "gaussian"
    assert np.abs(np.diff(second)).max() < 0.05


def test_without_overlap_each_pixel_has_one_tile():
    side = plan_tiles((300, 300), 100, 0).rows
    weights = np.stack([share.weights for share in side.shares(0, 300)])
    assert sorted(np.unique(weights)) == [0, 1]
    assert (weights.sum(1) == 100).all()


def test_an_image_that_fits_in_a_tile_is_one_tile_of_its_size():
    plan = plan_tiles((90, 60), 100, 20)
    assert plan.count == 1
    assert plan.box(0, 0) == (0, 0, 90, 60)


def test_a_narrow_image_is_padded_on_one_side():
    plan = plan_tiles((30, 250), 100, 20)
    assert plan.rows.tile == 100
    assert plan.columns.starts == (0, 75, 150)


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        ("auto", None),
        ("AUTO", None),
        ("512", (512, 128)),
        (" 512 , 64", (512, 64)),
        (512, (512, 128)),
        ((512, 0), (512, 0)),
    ],
)
def test_forms_of_tiles(tiles, expected):
    assert parse_tiles(tiles) == expected


@pytest.mark.parametrize(
    "tiles", ["large", "512,", "512,64,3", "-512", 0, 63, (512, 300), (512, -1), (1, 2, 3), 512.5, True]
)
def test_wrong_tiles_are_refused(tiles):
    with pytest.raises(SettingError):
        parse_tiles(tiles)


def test_an_unknown_window_is_refused():
    with pytest.raises(SettingError, match="hann, gaussian"):
        check_tiles(512, 64, "boxcar")


def test_automatic_size_follows_the_network_input():
    resize = Resize(short_side=448)
    assert auto_size((5000, 6000), resize) % 32 == 0
    assert auto_size((5000, 6000), Resize(short_side=896)) == 2 * auto_size((5000, 6000), resize)
    assert auto_size((300, 400), resize) == 400
    assert auto_size((5000, 6000), Resize(short_side=None)) > 0


def test_the_coarse_copy_is_twice_the_network_input():
    assert coarse_side((3000, 6000), Resize(short_side=448)) == 2 * 896


def test_maps_and_very_large_images_have_no_coarse_view_by_default():
    from deop.tiles.request import CONTEXT, Request
    from deop.tiles.scenes import ArrayScene, Georeference
    from tests.tiles.colour_model import ColourModel, names

    def context(shape, place=None, given=None):
        request = Request(ColourModel(2), names(2), "auto", "hann", given, None, (), None, 1, {})
        scene = ArrayScene(np.broadcast_to(np.uint8(0), (*shape, 3)), "image")
        scene.georeference = place
        return request.plan(scene)[1]

    assert context((3000, 6000)) == CONTEXT
    assert context((3000, 60_000)) == CONTEXT
    assert context((10_000, 10_000)) == 0
    assert context((3000, 6000), Georeference("", (1, 0, 0, 0, -1, 0))) == 0
    assert context((10_000, 10_000), given=0.4) == 0.4
