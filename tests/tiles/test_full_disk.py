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

LABELS = blobs((700, 900), 4, seed=1, size=30)
SIZES = [60, 240, 420, 460, 3000]
"""Sizes of disks in kilobytes; the last one is enough."""
CHILD = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from deop.errors import OutputError
    from deop.tiles import segment_tiles
    from tests.tiles.colour_model import ColourModel, names

    scene, polygons = Path(sys.argv[1]), sys.argv[2]
    for folder in map(Path, sys.argv[3:]):
        model, message = ColourModel(4, stride=4), ""
        try:
            segment_tiles(
                model, scene, names(4), folder / "out.tif", tiles=(256, 64), context=0, polygons=folder / polygons
            )
        except OutputError as error:
            message = str(error)
        print(json.dumps({"message": message, "encoded": len(model.seen)}), flush=True)
    """
)


def mount(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here")


@pytest.fixture
def disks(tmp_path):
    folders = [tmp_path / f"disk-{size}" for size in SIZES]
    mounted = []
    try:
        for folder, size in zip(folders, SIZES, strict=True):
            folder.mkdir()
            mount(folder, f"size={size}k")
            mounted.append(folder)
        yield folders
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def write_scene(path, georeferenced):
    pixels = picture(LABELS)
    if not georeferenced:
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None)
        return
    transform = rasterio.transform.from_origin(4e5, 5.8e6, 1, 1)
    profile = {"driver": "GTiff", "height": LABELS.shape[0], "width": LABELS.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as file:
        file.write(pixels.transpose(2, 0, 1))


def run(scene, polygons, folders):
    command = [sys.executable, "-W", "ignore", "-c", CHILD, scene, polygons, *folders]
    done = subprocess.run(
        [str(word) for word in command], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("georeferenced", "polygons"), [(False, "out.geojson"), (True, "out.gpkg")], ids=["tiff", "geotiff"]
)
def test_a_full_disk_is_reported_and_the_run_resumes_with_space(tmp_path, disks, georeferenced, polygons):
    scene = tmp_path / "scene.tif"
    write_scene(scene, georeferenced)
    first = run(scene, polygons, disks)
    failed = [number for number, result in enumerate(first) if result["message"]]
    assert failed == list(range(len(SIZES) - 1))
    for number in failed:
        assert "out." in first[number]["message"]
        assert "free space" in first[number]["message"].lower()
        assert "repeat the command" in first[number]["message"]
        assert not (disks[number] / "out.tif").exists()
        mount(disks[number], "remount,size=20000k")
    second = run(scene, polygons, [disks[number] for number in failed])
    total = first[-1]["encoded"]
    for number, result in zip(failed, second, strict=True):
        assert not result["message"]
        lost = first[number]["encoded"] + result["encoded"] - total
        assert 0 <= lost <= 1  # the tile in work
        found = {file.name: file for file in disks[number].iterdir()}
        assert set(found) == {"out.tif", polygons, *(["out.qml"] if georeferenced else [])}
        np.testing.assert_array_equal(tifffile.imread(found["out.tif"]), tifffile.imread(disks[-1] / "out.tif"))
        if not georeferenced:
            assert found[polygons].read_bytes() == (disks[-1] / polygons).read_bytes()


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
