"""Areas compared with those of PROJ and with known values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.results.polygons import Polygon, trace
from deop.results.rings import ring_area
from deop.tiles.areas import measure_of
from deop.tiles.outlines import trace_bands
from deop.tiles.scenes import Georeference

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.warp import transform  # noqa: E402

EARTH = 510_065_621_724_088.44
"""Square metres of the WGS 84 ellipsoid, as published with GeographicLib."""


def place(crs, matrix):
    return Georeference(CRS.from_user_input(crs).to_wkt(), matrix)


def rectangle(left, top, right, bottom):
    return Polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def test_the_whole_earth():
    measure = measure_of(place("EPSG:4326", (1, 0, -180, 0, -1, 90)))
    assert measure(rectangle(0, 0, 360, 180), 360 * 180) == pytest.approx(EARTH, rel=1e-12)
    north = measure(rectangle(0, 0, 360, 90), 1)
    assert north == pytest.approx(EARTH / 2, rel=1e-12)


def test_a_sphere():
    moon = (
        'GEOGCS["Moon",DATUM["D",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]'
    )
    measure = measure_of(Georeference(moon, (1, 0, 0, 0, -1, 90)))
    assert measure(rectangle(0, 0, 360, 180), 1) == pytest.approx(4 * np.pi * 1_737_400**2)


@given(st.floats(-170, 170), st.floats(-80, 80), st.integers(0, 1000), st.sampled_from([4326, 4258, 4807]))
@settings(max_examples=30, deadline=None)
def test_longitudes_and_latitudes_as_the_equal_area_projection_of_proj(west, north, seed, code):
    """EPSG:4807 has grads and another ellipsoid, of which the projection is made."""
    step = 0.001
    found = place(f"EPSG:{code}", (step, 0, west, 0, -step, north))
    mask = np.random.default_rng(seed).random((12, 15)) < 0.7
    ellipsoid = "+a=6378249.2 +rf=293.466021293627" if code == 4807 else "+ellps=GRS80"
    degrees = 0.9 if code == 4807 else 1
    source, target = (CRS.from_proj4(f"+proj={kind} {ellipsoid} +type=crs") for kind in ("longlat", "cea"))
    for polygon in trace(mask):
        expected = 0.0
        for ring in polygon.rings:
            corners = (np.array([west, north]) + ring * [step, -step]) * degrees
            x, y = transform(source, target, *corners.T.tolist())
            flat = np.stack([x, y], 1)
            expected -= ring_area(flat - flat[0])
        assert measure_of(found)(polygon, 1) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("code", [3857, 3395])
def test_mercator_maps_do_not_enlarge_areas(code):
    """A square kilometre at a latitude of 60 degrees has four times the area on the map."""
    x, y = transform("EPSG:32633", f"EPSG:{code}", [500_000], [6_651_000])
    found = place(f"EPSG:{code}", (1, 0, x[0], 0, -1, y[0]))
    corners = transform(
        "EPSG:32633", f"EPSG:{code}", [500_000, 501_000, 501_000, 500_000], [6_651_000] * 2 + [6_650_000] * 2
    )
    ring = np.stack([np.array(corners[0]) - x[0], y[0] - np.array(corners[1])], 1)
    assert ring_area(ring) == pytest.approx(4e6, rel=0.02)
    assert measure_of(found)(Polygon(ring), 1) == pytest.approx(1e6 / 0.9996**2, rel=1e-4)


def test_plane_maps_are_measured_in_metres():
    square = rectangle(0, 0, 10, 10)
    assert measure_of(place("EPSG:32633", (0.5, 0, 0, 0, -0.5, 0)))(square, 100) == 25
    assert measure_of(place("EPSG:2263", (2, 0, 0, 0, -2, 0)))(square, 100) == pytest.approx(400 * 0.3048006**2)
    assert measure_of(place("EPSG:32633", (0.3, 0.4, 0, 0.4, -0.3, 0)))(square, 100) == pytest.approx(25)  # rotated


def test_without_a_reference_system():
    square = rectangle(0, 0, 10, 10)
    assert measure_of(None)(square, 100) == 100
    assert measure_of(Georeference("", (2, 0, 0, 0, -2, 0)))(square, 100) == 400


def test_simplified_outlines_keep_the_exact_area():
    labels = np.tri(30, dtype=np.uint8)
    measure = measure_of(place("EPSG:4326", (1e-5, 0, 13, 0, -1e-5, 52)))
    [exact] = trace_bands([labels], measure=measure)
    [simple] = trace_bands([labels[:10], labels[10:]], tolerance=3, measure=measure)
    assert len(simple.polygon.outer) < len(exact.polygon.outer)
    assert simple.area == exact.area > 0
