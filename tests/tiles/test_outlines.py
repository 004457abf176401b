"""Polygons traced band by band, compared with those of the whole map."""

import json
import sqlite3
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deop.errors import MissingDependencyError, OutputError
from deop.images.connected_regions import connected_regions
from deop.results.polygons import trace
from deop.tiles import vector_files
from deop.tiles.areas import measure_of
from deop.tiles.outlines import trace_bands
from deop.tiles.scenes import Georeference
from deop.tiles.vector_files import check_polygons, write_polygons
from tests.tiles.colour_model import blobs

NAMES = ("cat", "dog", "wall, painted")


def in_bands(labels, heights):
    top = 0
    for height in [*heights, len(labels)]:
        if top < len(labels):
            yield labels[top : top + height]
        top += height


def canonical(polygon):
    """Rings as sets of directed edges, which do not depend on the first corner or the order."""
    edges = []
    for ring in polygon.rings:
        edges.append(frozenset(zip(map(tuple, ring.tolist()), map(tuple, np.roll(ring, -1, 0).tolist()), strict=True)))
    return edges[0], frozenset(edges[1:])


def expected_pieces(labels):
    regions = connected_regions(labels)
    ids = regions.paint(np.arange(len(regions.labels)))
    pieces = []
    for index, label in enumerate(regions.labels.tolist()):
        if label:
            [polygon] = trace(ids == index)
            pieces.append((label - 1, int(regions.areas[index]), canonical(polygon)))
    return Counter(pieces)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), max_size=8), st.integers(1, 3), st.booleans())
@example(170, [1, 4], 1, True)  # two pixels touch with corners before they are known to be connected
@settings(max_examples=150, deadline=None)
def test_bands_give_the_polygons_of_the_whole_map(seed, heights, names, noisy):
    random = np.random.default_rng(seed)
    shape = random.integers(1, 24, 2)
    labels = random.integers(0, names + 1, shape) if noisy else blobs(shape, names, seed, 8) + 1
    labels = labels.astype(np.uint8)
    found = [
        (outline.class_id, outline.pixels, canonical(outline.polygon))
        for outline in trace_bands(in_bands(labels, heights))
    ]
    assert Counter(found) == expected_pieces(labels)


def test_areas_of_polygons_are_those_of_their_pixels():
    labels = (blobs((200, 150), 3, 5) + 1).astype(np.uint16)
    for outline in trace_bands(in_bands(labels, [50, 50, 50])):
        assert outline.polygon.area == outline.pixels


def test_pieces_are_handed_over_as_soon_as_they_end():
    labels = np.zeros((40, 10), np.uint8)
    labels[2:4, 2:4] = 1
    labels[8:32, 5] = 2
    seen = []

    def bands():
        for number in range(4):
            seen.append(f"band {number}")
            yield labels[10 * number : 10 * number + 10]

    for outline in trace_bands(bands()):
        seen.append(outline.class_id)
    assert seen == ["band 0", 0, "band 1", "band 2", "band 3", 1]


def test_small_pieces_are_left_out_and_outlines_simplified():
    labels = np.zeros((40, 40), np.uint8)
    labels[5:30, 5:30] = np.tri(25, dtype=np.uint8)
    labels[35, 35] = 2
    exact = list(trace_bands([labels]))
    assert len(exact) == 2
    [outline] = trace_bands([labels], tolerance=1.5, min_area=2)
    assert len(outline.polygon.outer) < 6 < len(exact[0].polygon.outer)
    assert outline.pixels == exact[0].pixels
    single = list(trace_bands([labels], tolerance=5))
    assert {one.class_id for one in single} == {0, 1}  # a pixel stays a polygon


# --- Files


def some_labels():
    labels = np.zeros((30, 40), np.uint8)
    labels[2:10, 3:20] = 1
    labels[4:6, 5:8] = 0  # a hole
    labels[15:25, 30:40] = 3
    return labels


def write(path, place):
    outlines = trace_bands(in_bands(some_labels(), [7, 7, 7]), measure=measure_of(place))
    return write_polygons(outlines, NAMES, place, path, "labels")


def test_geojson_in_pixels(tmp_path):
    assert write(tmp_path / "out.geojson", None) == 2
    content = json.loads((tmp_path / "out.geojson").read_text())
    first, second = content["features"]
    assert first["properties"] == {"name": "cat", "class_id": 0, "area": 130, "pixels": 130}
    assert second["properties"]["name"] == "wall, painted"
    outer, hole = first["geometry"]["coordinates"]
    assert outer[0] == outer[-1]
    assert {tuple(point) for point in outer} == {(3, 2), (20, 2), (20, 10), (3, 10)}
    assert {tuple(point) for point in hole} == {(5, 4), (8, 4), (8, 6), (5, 6)}
    assert shoelace(outer) > 0 > shoelace(hole)


def shoelace(ring):
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def utm(scale=0.5):
    rasterio = pytest.importorskip("rasterio")
    return Georeference(rasterio.crs.CRS.from_epsg(32633).to_wkt(), (scale, 0, 500_000, 0, -scale, 5_000_000))


def test_geojson_of_a_map_has_degrees_and_the_area_in_square_metres(tmp_path):
    write(tmp_path / "out.geojson", utm())
    feature = json.loads((tmp_path / "out.geojson").read_text())["features"][0]
    assert feature["properties"]["area"] == 130 * 0.25
    outer, hole = feature["geometry"]["coordinates"]
    from rasterio.warp import transform

    x, y = transform("EPSG:4326", "EPSG:32633", *np.array(outer).T.tolist())
    corners = {(round(a, 1), round(b, 1)) for a, b in zip(x, y, strict=True)}
    assert corners == {(500_001.5, 4_999_999), (500_010, 4_999_999), (500_010, 4_999_995), (500_001.5, 4_999_995)}
    assert shoelace(outer) > 0 > shoelace(hole)


@pytest.mark.parametrize("west", [179.9998, -180.0002, 539.9998])
def test_polygons_across_the_180th_meridian_stay_in_one_piece(tmp_path, west):
    rasterio = pytest.importorskip("rasterio")
    place = Georeference(rasterio.crs.CRS.from_epsg(4326).to_wkt(), (1e-5, 0, west, 0, -1e-5, 50))
    write(tmp_path / "out.geojson", place)
    for feature in json.loads((tmp_path / "out.geojson").read_text())["features"]:
        corners = np.concatenate(feature["geometry"]["coordinates"])
        assert np.abs(np.abs(corners[:, 0]) - 180).max() < 1e-3
        assert np.ptp(corners[:, 0]) < 1e-3


@pytest.mark.parametrize(
    "wkt",
    [
        'LOCAL_CS["site",UNIT["metre",1]]',
        'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]',
    ],
)
def test_geojson_of_places_without_longitude_and_latitude_is_refused_at_the_start(tmp_path, wkt):
    pytest.importorskip("rasterio")
    place = Georeference(wkt, (1, 0, 10, 0, -1, 20))
    with pytest.raises(OutputError, match=r"\.gpkg"):
        check_polygons(tmp_path / "out.geojson", place)
    check_polygons(tmp_path / "out.gpkg", place)
    assert write(tmp_path / "out.gpkg", place) == 2


def geometry(blob):
    """A GeoPackage polygon as rings (n, 2): the standard's header, then well-known binary."""
    assert blob[:2] == b"GP"
    assert blob[3] == 0b011
    rings, place = [], 8 + 32
    order, kind, count = np.frombuffer(blob, "<u1", 1, place)[0], *np.frombuffer(blob, "<u4", 2, place + 1)
    assert (order, kind) == (1, 3)
    place += 9
    for _ in range(count):
        points = int(np.frombuffer(blob, "<u4", 1, place)[0])
        rings.append(np.frombuffer(blob, "<f8", 2 * points, place + 4).reshape(-1, 2))
        place += 4 + 16 * points
    assert place == len(blob)
    return rings


@pytest.mark.parametrize("georeferenced", [False, True])
def test_geopackage(tmp_path, georeferenced):
    place = utm() if georeferenced else None
    assert write(tmp_path / "out.gpkg", place) == 2
    connection = sqlite3.connect(tmp_path / "out.gpkg")
    rows = connection.execute('SELECT name, class_id, area, pixels, geom FROM "labels"').fetchall()
    assert [row[:4] for row in rows] == [
        ("cat", 0, 32.5 if georeferenced else 130, 130), ("wall, painted", 2, 25 if georeferenced else 100, 100),
    ]  # fmt: skip
    outer, hole = geometry(rows[0][4])
    assert len(outer) == len(hole) == 5
    np.testing.assert_array_equal(outer[0], outer[-1])
    contents = connection.execute("SELECT table_name, srs_id, min_x, max_y FROM gpkg_contents").fetchall()
    expected = (32633, 500_001.5, 4_999_999) if georeferenced else (-1, 3, 25)
    assert contents == [("labels", *expected)]
    assert connection.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
    connection.close()


@pytest.mark.parametrize("georeferenced", [False, True])
def test_gdal_reads_the_geopackage(tmp_path, georeferenced):
    pyogrio = pytest.importorskip("pyogrio")
    write(tmp_path / "out.gpkg", utm() if georeferenced else None)
    info = pyogrio.read_info(tmp_path / "out.gpkg")
    assert info["features"] == 2
    assert info["crs"] == ("EPSG:32633" if georeferenced else None) or not georeferenced
    assert list(info["fields"]) == ["name", "class_id", "area", "pixels"]


def test_an_empty_map_is_an_empty_file(tmp_path):
    for name in ("out.geojson", "out.gpkg"):
        assert write_polygons(trace_bands([np.zeros((5, 6), np.uint8)]), NAMES, None, tmp_path / name, "labels") == 0
    assert json.loads((tmp_path / "out.geojson").read_text())["features"] == []


def test_mistakes_are_reported(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"\.gpkg"):
        check_polygons(tmp_path / "out.shp", None)
    (tmp_path / "a.gpkg").mkdir()
    with pytest.raises(OutputError, match="folder"):
        check_polygons(tmp_path / "a.gpkg", None)
    with pytest.raises(OutputError, match="control points"):
        check_polygons(tmp_path / "out.gpkg", Georeference("", None, ((0, 0, 0, 0, 0),)))
    monkeypatch.setattr(vector_files, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="geo"):
        check_polygons(tmp_path / "out.gpkg", Georeference("", (1, 0, 0, 0, 1, 0)))
    check_polygons(tmp_path / "out.gpkg", None)
