"""Georeferenced images, read and checked with rasterio."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.errors import ImageError, MissingDependencyError, OutputError
from deop.tiles import opening, segment_tiles
from tests.tiles.colour_model import ColourModel, blobs, names, picture

rasterio = pytest.importorskip("rasterio")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp, Resampling  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402
from rasterio.transform import Affine  # noqa: E402


def write_scene(path, labels, *, valid=None, **options):
    pixels = picture(labels)
    profile = {"height": labels.shape[0], "width": labels.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **{"driver": "GTiff", **profile, **options}) as file:
        file.write(pixels.transpose(2, 0, 1))
        if valid is not None:
            file.write_mask(valid)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)),
        ("EPSG:4326", Affine(1e-5, 0, 13.4, 0, -1e-5, 52.5)),
        ("EPSG:3857", Affine(0.3, 0.1, 1e6, 0.1, -0.3, 6e6)),  # rotated
        ("EPSG:32633", Affine(0.5, 0, 400_000, 0, 0.5, 5_800_000)),  # the first row is the southern one
        ("EPSG:32633+5773", Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)),  # with heights
        (None, Affine(2, 0, 100, 0, -2, 200)),  # a transform without a reference system
    ],
)
def test_label_map_has_the_georeference_of_the_image(tmp_path, crs, transform):
    labels = blobs((700, 900), 4, size=90)
    write_scene(tmp_path / "scene.tif", labels, crs=crs, transform=transform)
    result = segment_tiles(
        ColourModel(4), tmp_path / "scene.tif", names(4), tmp_path / "out.tif", tiles=(200, 50), context=0
    )
    assert result.georeferenced
    with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(tmp_path / "out.tif") as out:
        assert out.crs == source.crs
        assert out.transform.almost_equals(source.transform, 1e-9)
        assert out.bounds == pytest.approx(source.bounds)
        np.testing.assert_array_equal(out.read(1), labels + 1)
        assert out.nodata == 0
        assert out.dtypes == ("uint8",)
        assert out.overviews(1)
        assert out.profile["tiled"]
        assert out.profile["compress"] == "deflate"
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert json.loads(out.tags()["deop"])["names"] == names(4)
        colours = json.loads(out.tags()["deop"])["colours"]
        assert [list(out.colormap(1)[number + 1][:3]) for number in range(4)] == colours
        assert out.colorinterp == (ColorInterp.palette,)
        level = out.overviews(1)[0]
        half = out.read(1, out_shape=(-(-700 // level), -(-900 // level)), resampling=Resampling.nearest)
        assert set(np.unique(half)) <= set(range(5))
    style = (tmp_path / "out.qml").read_text()
    assert style.count("<paletteEntry") == 4
    assert "name 3" in style


def test_ground_control_points_are_kept(tmp_path):
    labels = blobs((100, 120), 2)
    points = [GroundControlPoint(0, 0, 10, 50), GroundControlPoint(100, 0, 10, 49), GroundControlPoint(0, 120, 11, 50)]
    write_scene(tmp_path / "scene.tif", labels, gcps=points, crs="EPSG:4326")
    segment_tiles(ColourModel(2), tmp_path / "scene.tif", names(2), tmp_path / "out.tif", tiles=64, context=0)
    with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(tmp_path / "out.tif") as out:
        [(expected, expected_crs), (found, crs)] = source.gcps, out.gcps
        assert crs == expected_crs
        assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in expected]


def test_the_sensor_model_of_a_satellite_image_is_kept(tmp_path):
    labels = blobs((100, 120), 2)
    one, x, y = ([float(index == place) for index in range(20)] for place in range(3))
    model = RPC(
        height_off=0, height_scale=500, lat_off=52, lat_scale=0.1, line_den_coeff=one, line_num_coeff=y, line_off=50,
        line_scale=50, long_off=13, long_scale=0.1, samp_den_coeff=one, samp_num_coeff=x, samp_off=60, samp_scale=60,
    )  # fmt: skip
    write_scene(tmp_path / "scene.tif", labels, rpcs=model)
    arguments = ColourModel(2), tmp_path / "scene.tif", names(2)
    with pytest.raises(OutputError, match="rectify"):
        segment_tiles(*arguments, tmp_path / "no.tif", polygons=tmp_path / "no.gpkg")
    segment_tiles(*arguments, tmp_path / "out.tif", tiles=64, context=0)
    with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(tmp_path / "out.tif") as out:
        assert out.rpcs.to_dict() == source.rpcs.to_dict()
        np.testing.assert_array_equal(out.read(1), labels + 1)


WORLD = "0.5\n0\n0\n-0.5\n400000.25\n5799999.75\n"


@pytest.mark.parametrize(
    ("image", "world"), [("a.tif", "a.tfw"), ("a.png", "a.pgw"), ("a.png", "a.pngw"), ("a.bmp", "a.wld")]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_world_files_are_read(tmp_path, monkeypatch, image, world, orientation):
    labels = blobs((100, 120), 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(labels)).save(tmp_path / image, **({} if "bmp" in image else {"exif": exif}))
    (tmp_path / world).write_text(WORLD)
    segment_tiles(ColourModel(2), tmp_path / image, names(2), tmp_path / "out.tif", tiles=64, context=0)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.transform == Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
        np.testing.assert_array_equal(out.read(1), labels + 1)  # not turned: the transform is that of the file
    if image != "a.tif":
        monkeypatch.setattr(opening, "find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match=rf"{world}.*deop\[geo\]"):
            opening.open_scene(tmp_path / image)


def test_reference_systems_in_files_beside_the_image_are_read(tmp_path):
    labels = blobs((100, 120), 2)
    write_scene(
        tmp_path / "a.png", labels, driver="PNG", crs="EPSG:32633", transform=Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6)
    )
    assert (tmp_path / "a.png.aux.xml").exists()
    segment_tiles(ColourModel(2), tmp_path / "a.png", names(2), tmp_path / "out.tif", tiles=64, context=0)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.crs.to_epsg() == 32633
        assert out.transform == Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6)


def test_complex_values_are_refused(tmp_path):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=9, width=9, count=1, dtype="complex64") as file:
        file.write(np.ones((1, 9, 9), np.complex64))
    with pytest.raises(ImageError, match="complex"):
        opening.open_scene(tmp_path / "a.tif")


def test_many_names_are_not_cut_in_a_geotiff(tmp_path):
    labels = np.arange(300).repeat(2)[None].repeat(70, 0).astype(np.int32)
    write_scene(tmp_path / "scene.tif", labels, crs="EPSG:3857", transform=Affine(1, 0, 0, 0, -1, 0))
    segment_tiles(ColourModel(300), tmp_path / "scene.tif", names(300), tmp_path / "out.tif", tiles=(256, 0), context=0)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.dtypes == ("uint16",)
        np.testing.assert_array_equal(out.read(1), labels + 1)


def test_pixels_without_data_have_no_name_and_empty_tiles_are_not_encoded(tmp_path):
    labels = np.zeros((400, 600), np.int32)
    valid = np.ones((400, 600), bool)
    valid[:, :350] = False
    write_scene(tmp_path / "scene.tif", labels, valid=valid, crs="EPSG:3857", transform=Affine(1, 0, 0, 0, -1, 0))
    model = ColourModel(1)
    result = segment_tiles(model, tmp_path / "scene.tif", names(1), tmp_path / "out.tif", tiles=(100, 20), context=0)
    assert len(model.seen) < 0.6 * result.tiles
    with rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_array_equal(out.read(1), valid)
    assert result.pixels.tolist() == [valid.sum()]


def test_polygons_of_a_map_cover_its_pixels(tmp_path):
    labels = blobs((600, 500), 3, size=120)
    write_scene(tmp_path / "scene.tif", labels, crs="EPSG:32633", transform=Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6))
    result = segment_tiles(
        ColourModel(3), tmp_path / "scene.tif", names(3), tmp_path / "out.tif", tiles=(128, 32), context=0,
        polygons=tmp_path / "out.geojson",
    )  # fmt: skip
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert result.polygon_count == len(features)
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    shapes = [
        (transform_geom("EPSG:4326", "EPSG:32633", each["geometry"]), each["properties"]["class_id"] + 1)
        for each in features
    ]
    with rasterio.open(tmp_path / "out.tif") as out:
        painted = rasterize(shapes, out.shape, transform=out.transform)
        np.testing.assert_array_equal(painted, out.read(1))
    for number in range(3):
        area = sum(each["properties"]["area"] for each in features if each["properties"]["class_id"] == number)
        assert area == pytest.approx((labels == number).sum() / 4)


def test_virtual_rasters_are_images_too(tmp_path):
    labels = blobs((100, 120), 2)
    write_scene(tmp_path / "scene.tif", labels, crs="EPSG:3857", transform=Affine(1, 0, 0, 0, -1, 0))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">scene.tif'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    (tmp_path / "scene.vrt").write_text(f'<VRTDataset rasterXSize="120" rasterYSize="100">{bands}</VRTDataset>')
    segment_tiles(ColourModel(2), tmp_path / "scene.vrt", names(2), tmp_path / "out.tif", tiles=64, context=0)
    with rasterio.open(tmp_path / "out.tif") as out:
        np.testing.assert_array_equal(out.read(1), labels + 1)
