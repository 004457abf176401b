"""A disk of a few megabytes that fills up. Processes of their own do the work: mapped memory can end them there."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from deop.errors import ImageError, OutputError
from deop.tiles import segment_tiles
from deop.tiles.scenes import mapped_array, temporary_array
from tests.tiles.colour_model import ColourModel, blobs, names, picture

tifffile = pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")

LABELS = blobs((1500, 1100), 4, seed=1, size=8)
CHILD = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from deop.errors import OutputError
    from deop.tiles import segment_tiles
    from tests.tiles.colour_model import ColourModel, names

    scene, folder, polygons = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    model, message = ColourModel(4, stride=4), ""
    try:
        segment_tiles(
            model, scene, names(4), folder / "out.tif", tiles=(256, 64), context=0,
            polygons=folder / polygons if polygons else None,
        )
    except OutputError as error:
        message = str(error)
    print(json.dumps({"message": message, "encoded": len(model.seen)}))
    """
)


@pytest.fixture
def disk(tmp_path):
    """A small disk; the function sets its size in kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def resize(kilobytes):
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no small disk can be mounted here")
        mounted = True
        return folder

    yield resize
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def write_scene(path, georeferenced):
    pixels = picture(LABELS)
    if not georeferenced:
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None)
        return
    transform = rasterio.transform.from_origin(4e5, 5.8e6, 1, 1)
    profile = {"driver": "GTiff", "height": 1500, "width": 1100, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as file:
        file.write(pixels.transpose(2, 0, 1))


def run(scene, folder, polygons=""):
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(scene), str(folder), polygons]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("georeferenced", "polygons"), [(False, "out.geojson"), (True, "out.gpkg")], ids=["tiff", "geotiff"]
)
def test_a_small_disk_is_reported_and_the_run_resumes_with_space(tmp_path, disk, georeferenced, polygons):
    scene = tmp_path / "scene.tif"
    write_scene(scene, georeferenced)
    (tmp_path / "expected").mkdir()
    total = run(scene, tmp_path / "expected", polygons)["encoded"]
    expected = {file.name: file.read_bytes() for file in (tmp_path / "expected").iterdir()}
    encoded, size, failures = 0, 100, 0
    for _ in range(60):
        folder = disk(size)
        result = run(scene, folder, polygons)
        encoded += result["encoded"]
        found = sorted(file.name for file in folder.iterdir())
        if not result["message"]:
            break
        failures += 1
        assert "out." in result["message"]
        assert "free space" in result["message"].lower()
        assert "resume" in result["message"] or "repeat the command" in result["message"]
        assert "out.tif" not in found
        size = round(size * 1.15) + 30
    assert failures >= 5
    assert encoded <= total + failures  # at most the tile in work is lost
    assert found == sorted(expected)
    maps = [tifffile.imread(place / "out.tif") for place in (folder, tmp_path / "expected")]
    np.testing.assert_array_equal(*maps)
    if polygons == "out.geojson":
        assert (folder / polygons).read_bytes() == expected[polygons]


def test_space_of_mapped_arrays_is_reserved(tmp_path, monkeypatch):
    values = mapped_array(tmp_path / "values.raw", np.dtype(np.uint16), (700, 1000))
    values[:] = 7
    if hasattr(tmp_path.stat(), "st_blocks"):
        assert (tmp_path / "values.raw").stat().st_blocks * 512 >= 1_400_000

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="space"):
        mapped_array(tmp_path / "more.raw", np.dtype(np.uint16), (700, 1000))
    assert not (tmp_path / "more.raw").exists()
    with pytest.raises(ImageError, match=r"photo.*No space left.*free some space"):
        temporary_array((10, 10), np.dtype(np.uint8), tmp_path, "photo")


def test_private_errors_of_rasterio_are_reported(tmp_path, monkeypatch):
    from rasterio._err import CPLE_AppDefinedError

    write_scene(tmp_path / "scene.tif", True)

    def fail(*arguments, **options):
        raise CPLE_AppDefinedError(3, 1, "TIFFAppendToStrip:Write error")

    monkeypatch.setattr("rasterio.shutil.copy", fail)
    with pytest.raises(OutputError, match=r"Write error; the disk has .* left.*resume"):
        segment_tiles(ColourModel(4, stride=4), tmp_path / "scene.tif", names(4), tmp_path / "out.tif", tiles=512)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.tif.tiles", "scene.tif"]
    assert not [path for path in (tmp_path / ".out.tif.tiles").iterdir() if path.suffix == ".tif"]
