"""Whole images: the answer is known, whatever the tiles."""

import json
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deop.errors import ImageError, OutputError, SettingError, VocabularyError
from deop.images.preprocessing import Resize
from deop.settings import Settings
from deop.tiles import segment_photo, segment_tiles
from deop.tiles.blending import BLOCK
from tests.tiles.colour_model import ColourModel, blobs, names, picture

tifffile = pytest.importorskip("tifffile")


def read(path):
    return tifffile.imread(path).astype(np.int64) - 1


# --- No seams


@given(
    st.integers(65, 400), st.integers(65, 400), st.integers(64, 200), st.sampled_from([0, 0.1, 0.25, 0.5]),
    st.sampled_from(["hann", "gaussian"]), st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_tiles_give_the_answer_of_the_whole_image(height, width, size, share, window, seed):
    labels = blobs((height, width), 5, seed)
    tiles = (size, int(size * share))
    result = segment_photo(ColourModel(5), picture(labels), names(5), tiles=tiles, window=window, context=0)
    np.testing.assert_array_equal(result.label_map, labels)


def test_a_whole_image_is_segmented_as_without_tiles():
    labels = blobs((120, 150), 4)
    model = ColourModel(4)
    whole = model.segment(picture(labels), names(4))
    tiled = segment_photo(model, picture(labels), names(4), tiles=200)
    np.testing.assert_array_equal(tiled.label_map, whole.label_map)
    assert [segment.score for segment in tiled.segments] == pytest.approx([segment.score for segment in whole.segments])


def test_wrong_names_at_the_edges_of_tiles_are_outvoted():
    """A network is unsure at the edges of its input; the blended scores are those of the tile that sees more."""
    labels = np.repeat(np.arange(3), 200)[None].repeat(500, 0).astype(np.int32)
    model = ColourModel(3, border=12)
    result = segment_photo(model, picture(labels), names(3), tiles=(200, 60), context=0)
    inside = slice(12, -12)  # at the edges of the image there is no other tile
    np.testing.assert_array_equal(result.label_map[inside, inside], labels[inside, inside])
    without = segment_photo(model, picture(labels), names(3), tiles=(200, 0), context=0).label_map
    assert (without != labels).mean() > 0.15


def test_without_overlap_every_pixel_has_an_answer():
    labels = blobs((333, 257), 3)
    result = segment_photo(ColourModel(3), picture(labels), names(3), tiles=(100, 0), context=0)
    np.testing.assert_array_equal(result.label_map, labels)


def test_borders_of_the_image_have_names():
    labels = np.zeros((300, 420), np.int32)
    result = segment_photo(ColourModel(1), picture(labels), names(1), tiles=(128, 32), context=0)
    assert (result.label_map == 0).all()
    assert result.segments[0].score == pytest.approx(1, abs=1e-5)


def test_the_coarse_view_decides_what_tiles_cannot():
    """Tiles give the same score to two names; the coarse view knows better."""

    class Unsure(ColourModel):
        def class_probabilities(self, encoded, names):
            unsure = encoded.canvas.photo[1] < 400
            row = [0.5, 0.5, 0.0] if unsure else [0.0, 1.0, 0.0]
            return np.tile(np.array(row, np.float32), (len(encoded.masks), 1))

    photo = picture(np.zeros((400, 400), np.int32))
    alone = segment_photo(Unsure(2), photo, names(2), tiles=(128, 32), context=0)
    helped = segment_photo(Unsure(2), photo, names(2), tiles=(128, 32), context=0.25)
    assert (alone.label_map == 0).all()
    assert (helped.label_map == 1).all()


def test_a_narrow_image_is_padded_by_reflection():
    labels = blobs((20, 300), 3, size=15)
    model = ColourModel(3)
    result = segment_photo(model, picture(labels), names(3), tiles=(100, 20), context=0)
    np.testing.assert_array_equal(result.label_map, labels)
    assert set(model.seen) == {(100, 100)}


def test_batches_of_tiles_give_the_same_answer():
    labels = blobs((300, 300), 3)
    for batch in (2, 5, 100):
        result = segment_photo(ColourModel(3), picture(labels), names(3), tiles=(100, 20), context=0, batch=batch)
        np.testing.assert_array_equal(result.label_map, labels)


def test_each_tile_is_encoded_once():
    model = ColourModel(3)
    result = segment_photo(model, picture(blobs((700, 900), 3)), names(3), tiles=(200, 50), context=0.2)
    assert len(model.seen) == 5 * 6 + 1
    assert result.shape == (700, 900)


# --- Files


def run(folder, labels, count=None, **options):
    count = count or int(labels.max()) + 1
    photo = folder / "scene.png"
    if not photo.exists():
        Image.fromarray(picture(labels)).save(photo)
    options = {"tiles": (128, 32), "context": 0, **options}
    return segment_tiles(
        options.pop("model", None) or ColourModel(count), photo, names(count), folder / "out.tif", **options
    )


@given(st.integers(1, 700), st.integers(1, 1100))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_label_map_file_has_the_answer_at_any_size(tmp_path_factory, height, width):
    folder = tmp_path_factory.mktemp("sizes")
    labels = blobs((height, width), 4)
    result = run(folder, labels, 4)
    np.testing.assert_array_equal(read(result.out), labels)
    np.testing.assert_array_equal(result.pixels, np.bincount(labels[labels >= 0], minlength=4))
    assert sorted(path.name for path in folder.iterdir()) == ["out.tif", "scene.png"]


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_more_than_255_names_are_not_cut(tmp_path, count, dtype):
    labels = np.arange(count).repeat(4)[None].repeat(70, 0).astype(np.int32)
    result = run(tmp_path, labels, count, tiles=(256, 0))
    with tifffile.TiffFile(result.out) as file:
        assert file.pages[0].dtype == dtype
        assert (file.pages[0].photometric.name == "PALETTE") == (count <= 255)
    np.testing.assert_array_equal(read(result.out), labels)


def test_file_is_tiled_compressed_and_has_overviews_names_and_colours(tmp_path):
    labels = blobs((700, 1300), 3, size=300)
    result = run(tmp_path, labels)
    with tifffile.TiffFile(result.out) as file:
        base, *overviews = file.pages
        assert base.is_tiled
        assert base.compression.name == "ADOBE_DEFLATE"
        assert [page.shape for page in overviews] == [(350, 650), (175, 325)]
        assert all(page.is_reduced for page in overviews)
        description = json.loads(base.description)
        assert description["names"] == names(3)
        assert (base.colormap[:, 1:4].T // 257).tolist() == description["colours"]
        half = overviews[0].asarray().astype(int) - 1
    agree = (half == labels[::2, ::2]).mean()
    assert agree > 0.99


def test_summary_lists_every_name(tmp_path):
    result = run(tmp_path, np.zeros((80, 90), np.int32), 2)
    summary = json.loads(json.dumps(result.summary()))
    assert [entry["share"] for entry in summary["classes"]] == [1, 0]
    assert summary["classes"][1]["score"] is None
    assert summary["size"] == [90, 80]
    assert summary["tiles"]["count"] == 1


def test_small_regions_are_removed_as_in_photos(tmp_path):
    labels = np.zeros((900, 700), np.int32)
    labels[::37, ::41] = 1  # single pixels, also at the borders of blocks
    labels[500:530, 490:530] = 1
    model = ColourModel(2, settings=Settings(resize=Resize(short_side=None, divisor=1), smallest_region=0.001))
    result = run(tmp_path, labels, 2, model=model, tiles=(256, 64))
    expected = np.zeros_like(labels)
    expected[500:530, 490:530] = 1
    np.testing.assert_array_equal(read(result.out), expected)
    np.testing.assert_array_equal(result.pixels, np.bincount(expected.ravel()))
    in_memory = segment_photo(model, tmp_path / "scene.png", names(2), tiles=(256, 64), context=0)
    np.testing.assert_array_equal(in_memory.label_map, expected)


def test_arrays_are_photos_too(tmp_path):
    labels = blobs((300, 200), 3)
    result = segment_tiles(ColourModel(3), picture(labels), names(3), tmp_path / "out.tif", tiles=128, context=0)
    np.testing.assert_array_equal(read(result.out), labels)


# --- Resume

CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from deop.tiles import segment_tiles
    from tests.tiles.colour_model import ColourModel, names

    folder = Path(sys.argv[1])
    segment_tiles(
        ColourModel(4), folder / "scene.png", names(4), folder / "out.tif", tiles=(128, 32), context=0,
        polygons=folder / "out.geojson", progress=lambda done, total: print(done, total, flush=True),
    )
    """
)


def test_a_killed_run_resumes_and_gives_the_same_files(tmp_path):
    labels = blobs((1400, 640), 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        Image.fromarray(picture(labels)).save(folder / "scene.png")
    expected = run(whole, labels, 4, polygons=whole / "out.geojson")
    for reports in (2, 30, 25, 40, 9, None):  # the last run is not killed
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(killed)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
        )
        for _ in range(reports or 0):
            if not child.stdout.readline():
                break
        if reports:
            child.kill()
        child.communicate()
    assert child.returncode == 0
    assert sorted(path.name for path in killed.iterdir()) == ["out.geojson", "out.tif", "scene.png"]
    np.testing.assert_array_equal(read(killed / "out.tif"), read(expected.out))
    np.testing.assert_array_equal(read(expected.out), labels)
    assert (killed / "out.geojson").read_bytes() == (whole / "out.geojson").read_bytes()
    assert (killed / "out.tif").read_bytes() == (whole / "out.tif").read_bytes()


def test_finished_tiles_are_not_computed_again(tmp_path):
    labels = blobs((1500, 500), 3)
    broken = ColourModel(3, fail_after=40)
    with pytest.raises(OSError, match="space"):
        run(tmp_path, labels, 3, model=broken)
    assert (tmp_path / ".out.tif.tiles" / "labelled" / "000000.zip").exists()
    second = ColourModel(3)
    seen = []
    result = run(tmp_path, labels, 3, model=second, progress=lambda done, total: seen.append((done, total)))
    assert len(second.seen) + 40 == result.tiles
    assert result.encoded == len(second.seen)
    assert seen[0][0] > 0
    assert seen[-1] == (result.tiles, result.tiles)
    assert all(before[0] <= after[0] for before, after in pairwise(seen))
    np.testing.assert_array_equal(read(result.out), labels)


def test_files_that_were_damaged_since_are_computed_again(tmp_path):
    labels = blobs((1500, 500), 3)
    with pytest.raises(OSError, match="space"):
        run(tmp_path, labels, 3, model=ColourModel(3, fail_after=60))
    files = [*(tmp_path / ".out.tif.tiles").rglob("*.zip"), *(tmp_path / ".out.tif.tiles").rglob("*.npz")]
    assert len(files) > 5
    for number, file in enumerate(files):
        file.write_bytes(file.read_bytes()[: number % 3 * file.stat().st_size // 3])
    np.testing.assert_array_equal(read(run(tmp_path, labels, 3).out), labels)


def test_other_settings_are_refused_by_name(tmp_path):
    labels = blobs((900, 500), 3)
    with pytest.raises(OSError, match="space"):
        run(tmp_path, labels, 3, model=ColourModel(3, fail_after=10))
    with pytest.raises(SettingError, match=r"tiles \[128, 32\], now \[128, 16\].*overwrite"):
        run(tmp_path, labels, 3, tiles=(128, 16))
    with pytest.raises(SettingError, match="threshold"):
        run(tmp_path, labels, 3, threshold=0.9)
    result = run(tmp_path, labels, 3, tiles=(128, 16), overwrite=True)
    np.testing.assert_array_equal(read(result.out), labels)


def test_another_image_under_the_same_name_is_refused(tmp_path):
    labels = blobs((900, 500), 3)
    with pytest.raises(OSError, match="space"):
        run(tmp_path, labels, 3, model=ColourModel(3, fail_after=10))
    Image.fromarray(picture(blobs((900, 500), 3, seed=8))).save(tmp_path / "scene.png")
    with pytest.raises(SettingError, match="image"):
        run(tmp_path, labels, 3)


def test_two_processes_do_not_write_one_output(tmp_path):
    from deop.tiles.journal import Journal

    pytest.importorskip("fcntl")
    other = Journal(tmp_path / "out.tif")
    other.acquire()
    with pytest.raises(SettingError, match="another process"):
        run(tmp_path, blobs((100, 100), 2), 2, overwrite=True)
    other.close()
    run(tmp_path, blobs((100, 100), 2), 2)


# --- Mistakes


def test_an_existing_output_is_not_replaced(tmp_path):
    labels = blobs((100, 100), 2)
    run(tmp_path, labels, 2)
    model = ColourModel(2)
    with pytest.raises(OutputError, match=r"out\.tif exists.*overwrite"):
        run(tmp_path, labels, 2, model=model)
    assert not model.seen
    run(tmp_path, labels, 2, overwrite=True)
    (tmp_path / "out.tif").unlink()
    (tmp_path / "out.gpkg").touch()
    with pytest.raises(OutputError, match=r"out\.gpkg exists"):
        run(tmp_path, labels, 2, polygons=tmp_path / "out.gpkg")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tiles": "big"}, SettingError, "tiles"),
        ({"context": 1.0}, SettingError, "context"),
        ({"context": True}, SettingError, "context"),
        ({"threshold": 2}, SettingError, "threshold"),
        ({"batch": 0}, SettingError, "batch"),
        ({"window": "box"}, SettingError, "window"),
        ({"tolerance": -1}, SettingError, "tolerance"),
        ({"min_area": -1}, SettingError, "min_area"),
        ({"polygons": "out.shp"}, OutputError, "geojson"),
        ({"mode": "panoptic"}, SettingError, "mode"),
        ({"bands": (1, 2, 3)}, SettingError, "rasters"),
    ],
)
def test_wrong_options_are_refused_before_the_model_runs(tmp_path, options, error, message):
    model = ColourModel(2)
    with pytest.raises(error, match=message):
        run(tmp_path, blobs((80, 80), 2), 2, model=model, **options)
    assert not model.seen
    assert [path.name for path in tmp_path.iterdir()] == ["scene.png"]


def test_wrong_outputs_and_inputs_are_refused(tmp_path):
    model = ColourModel(2)
    photo = picture(blobs((80, 80), 2))
    with pytest.raises(OutputError, match=r"\.tif"):
        segment_tiles(model, photo, names(2), tmp_path / "out.png")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(OutputError, match="folder"):
        segment_tiles(model, photo, names(2), tmp_path / "folder.tif", overwrite=True)
    with pytest.raises(ImageError, match=r"[Nn]o such file"):
        segment_tiles(model, tmp_path / "missing.png", names(2), tmp_path / "out.tif")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="empty"):
        segment_tiles(model, tmp_path / "empty.png", names(2), tmp_path / "out.tif")
    with pytest.raises(VocabularyError):
        segment_tiles(model, photo, "", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()
    assert not (tmp_path / ".out.tif.tiles").exists()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_polygons_that_cannot_be_written_are_reported_before_the_model_runs(tmp_path, suffix):
    (tmp_path / "file").touch()
    model = ColourModel(3)
    with pytest.raises(OutputError, match=rf"file.a\{suffix}: "):
        run(tmp_path, blobs((300, 300), 3), 3, model=model, polygons=tmp_path / "file" / f"a{suffix}")
    assert not model.seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "scene.png"]


def test_a_full_disk_is_reported_and_work_is_kept(tmp_path, monkeypatch):
    labels = blobs((1300, 300), 3)
    from deop.tiles import journal

    real, writes = journal.os.fsync, []

    def fsync(handle):
        writes.append(handle)
        if len(writes) > 30:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(journal.os, "fsync", fsync)
    with pytest.raises(OutputError, match=r"out\.tif: No space left on device.*repeat the command to resume"):
        run(tmp_path, labels, 3)
    assert not (tmp_path / "out.tif").exists()
    monkeypatch.setattr(journal.os, "fsync", real)
    model = ColourModel(3)
    result = run(tmp_path, labels, 3, model=model)
    assert 0 < len(model.seen) < result.tiles
    np.testing.assert_array_equal(read(result.out), labels)


def test_a_full_disk_while_the_final_file_is_written(tmp_path, monkeypatch):
    labels = blobs((600, 600), 3)
    import deop.tiles.writing as writing

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_put_half", fail)
        with pytest.raises(OutputError, match="No space left"):
            run(tmp_path, labels, 3)
    assert not (tmp_path / "out.tif").exists()
    model = ColourModel(3)
    run(tmp_path, labels, 3, model=model)
    assert not model.seen
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), labels)


def test_a_truncated_image_is_reported(tmp_path):
    labels = blobs((700, 700), 3)
    Image.fromarray(picture(labels)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "scene.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"scene\.png: truncated"):
        run(tmp_path, labels, 3)


# --- Everyday models


def test_built_in_vocabularies_keep_the_names_of_each_tile():
    labels = blobs((200, 300), 4, size=80)
    model = ColourModel(4)
    vocabulary = replace(model.vocabulary(names(4)), source="test")
    result = segment_photo(model, picture(labels), vocabulary, tiles=(128, 32), context=0)
    assert set(np.unique(result.label_map)) <= set(range(-1, 4))


def test_nano_in_tiles_of_its_input_finds_what_it_finds_in_parts():
    """A real model: tiles that do not overlap are labelled like photos of their own."""
    from deop import load

    model = load("nano")
    model.settings = replace(model.settings, smallest_region=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photo = np.asarray(Image.open(Path(__file__).parents[1] / "fixtures" / "photos" / next_photo()).convert("RGB"))
    photo = np.ascontiguousarray(photo[:256, :256])
    wide = np.concatenate([photo, photo[:, ::-1]], 1)
    words = ["person", "dog", "wall", "sky", "grass", "table"]
    tiled = segment_photo(model, wide, words, tiles=(256, 0), context=0).label_map
    for part, labels in ((wide[:, :256], tiled[:, :256]), (wide[:, 256:], tiled[:, 256:])):
        np.testing.assert_array_equal(labels, model.segment(np.ascontiguousarray(part), words).label_map)


def test_both_engines_give_the_same_map(tmp_path):
    pytest.importorskip("torch")
    from deop import load

    photo = np.asarray(Image.open(Path(__file__).parents[1] / "fixtures" / "photos" / next_photo()).convert("RGB"))
    wide = np.tile(photo[:192, :192], (1, 2, 1))
    words = ["person", "dog", "wall", "sky", "grass", "table"]
    maps = []
    for engine in ("onnx", "torch"):
        model = load("nano", engine=engine, device="cpu")
        assert model.engine == engine
        result = segment_tiles(model, wide, words, tmp_path / f"{engine}.tif", tiles=(256, 64), context=0.2)
        maps.append(read(result.out))
    assert len(np.unique(maps[0])) > 1
    assert (maps[0] == maps[1]).mean() > 0.999


def next_photo():
    folder = Path(__file__).parents[1] / "fixtures" / "photos"
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))[0]


def test_blocks_are_as_large_as_bands():
    assert BLOCK % 16 == 0  # sides of TIFF tiles are multiples of 16
