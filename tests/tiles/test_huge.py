"""Huge images in little memory, and 1,000 names; each in a process whose peak memory is measured."""

import json
import os
import subprocess
import sys
import textwrap
from math import ceil
from pathlib import Path

import numpy as np
import pytest

tifffile = pytest.importorskip("tifffile")

CELL = 64
CHILD = textwrap.dedent(
    """
    import json, resource, sys, time
    from deop.tiles import segment_tiles
    from tests.tiles.colour_model import ColourModel, names

    def peak():
        # In MiB. Linux counts in ru_maxrss what the parent used when it started this process.
        try:
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
        except OSError:
            unit = 1 << 20 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    photo, out, polygons, count, stride, size, overlap = sys.argv[1:]
    imports = peak()
    model = ColourModel(int(count), stride=int(stride))
    started = time.process_time()
    result = segment_tiles(
        model, photo, names(int(count)), out, tiles=(int(size), int(overlap)), context=0.1, polygons=polygons or None
    )
    print(json.dumps({
        "peak": peak(), "imports": imports, "seconds": time.process_time() - started,
        "tiles": result.tiles, "polygons": result.polygon_count, "pixels": int(result.pixels.sum()),
    }))
    """
)


def write_scene(path, side, count):
    """Write a square image of cells, each with one of the names, and return the name of each cell."""
    from tests.tiles.colour_model import colours

    cells = np.random.default_rng(0).integers(0, count, (-(-side // CELL), -(-side // CELL)))
    table = colours(count)

    def tiles():
        for top in range(0, side, 512):
            for left in range(0, side, 512):
                part = cells[top // CELL : (top + 512) // CELL, left // CELL : (left + 512) // CELL]
                pixels = table[part.repeat(CELL, 0).repeat(CELL, 1)]
                yield np.pad(pixels, [(0, 512 - pixels.shape[0]), (0, 512 - pixels.shape[1]), (0, 0)])

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(512, 512), compression="zlib", photometric="rgb",
        metadata=None,
    )  # fmt: skip
    return cells


def run(folder, count, stride, tiles, polygons=""):
    command = [sys.executable, "-c", CHILD, folder / "scene.tif", folder / "out.tif", polygons, count, stride, *tiles]
    done = subprocess.run(
        [str(word) for word in command], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


def check_centres(path, cells, side):
    """The middle of each cell has its name; at the edges, a cell of the network input covers two names."""
    step = CELL // 2
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.shape == (side, side)
        wrong = 0
        for index in range(0, len(page.dataoffsets)):
            file.filehandle.seek(page.dataoffsets[index])
            values, place, _ = page.decode(file.filehandle.read(page.databytecounts[index]), index)
            top, left = place[2], place[3]
            found = values[0, step::CELL, step::CELL, 0].astype(int) - 1
            expected = cells[top // CELL : (top + 512) // CELL, left // CELL : (left + 512) // CELL]
            inside = np.minimum(expected.shape, [-(-(side - top - step) // CELL), -(-(side - left - step) // CELL)])
            part = slice(0, inside[0]), slice(0, inside[1])
            wrong += int((found[part] != expected[part]).sum())
    return wrong


@pytest.mark.slow
def test_a_huge_image_needs_less_than_1_gib(tmp_path):
    """DEOP_MEGAPIXELS=400 is the image of the figures in docs/huge-images.md: it takes minutes."""
    side = round(1000 * float(os.environ.get("DEOP_MEGAPIXELS", "64")) ** 0.5)
    cells = write_scene(tmp_path / "scene.tif", side, 10)
    result = run(tmp_path, 10, 8, (1024, 256), tmp_path / "out.gpkg")
    assert result["peak"] < 1024
    assert result["tiles"] == ceil((side - 256) / 768) ** 2
    assert check_centres(tmp_path / "out.tif", cells, side) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gpkg", "out.tif", "scene.tif"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image_or_the_names(tmp_path):
    peaks = []
    for side, count in ((2048, 10), (6144, 10), (2048, 1000)):
        folder = tmp_path / f"{side}-{count}"
        folder.mkdir()
        cells = write_scene(folder / "scene.tif", side, count)
        result = run(folder, count, 8, (512, 128))
        peaks.append(result["peak"] - result["imports"])
        assert check_centres(folder / "out.tif", cells, side) == 0
    assert peaks[1] < peaks[0] + 200  # MiB; caches fill up to their limits
    assert peaks[2] < peaks[0] + 500
