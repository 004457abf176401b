"""Labelled data in Parquet files and WebDataset's tar files is the data of the folder that they were made from."""

import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deop.data import entries
from deop.data.check import checked_folder, survey
from deop.data.entries import image_source
from deop.data.folder import open_folder
from deop.data.labelled import read_classes
from deop.data.pack import pack
from deop.data.source import open_data, splits_of
from deop.errors import DataError, SettingError
from deop.images.reading import read_photo

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES = [{"id": 1, "name": "cat", "isthing": True, "seen": True}, {"id": 300, "name": "wall", "isthing": False}]
FORMS = ["one.parquet", "many-{}.parquet", "one.tar", "many-{}.tar"]


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Five photos of several formats and sizes, some in a directory and with dots in their names."""
    root, rng = tmp_path / "folder", np.random.default_rng(0)
    names = ["a.jpg", "b.1.png", "b_1.png", "city/c.webp", "city/d.jpg"]
    for number, name in enumerate(names):
        size = (20 + number, 30)
        for kind in ("images", "masks"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / "images" / name)
        ids = rng.choice([0, 1, 300], size).astype(np.uint16)
        Image.fromarray(ids).save((root / "masks" / name).with_suffix(".png"))
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


def packed(folder, out, **options):
    """The place of packed data."""
    out.parent.mkdir(exist_ok=True)
    pack(open_folder(folder), out, **options)
    return Path(str(out).replace("{}", "*"))


def assert_same(actual, expected, keys=True):
    assert actual.classes == expected.classes
    assert len(actual.pairs) == len(expected.pairs)
    for one, other in zip(actual.pairs, expected.pairs, strict=True):
        np.testing.assert_array_equal(read_photo(image_source(one.photo)), read_photo(other.photo))
        np.testing.assert_array_equal(actual.labels(one), expected.labels(other))
        assert not keys or one.key == other.key


@pytest.mark.parametrize("form", FORMS)
def test_packed_data_is_that_of_the_folder(folder, tmp_path, form):
    place = packed(folder, tmp_path / "packed" / form, shard_mb=0.003)
    data, expected = open_data(place), open_folder(folder)
    assert_same(data, expected, keys=form.endswith("parquet"))  # WebDataset's keys have no dots
    if form.endswith("tar"):
        assert [pair.key for pair in data.pairs] == ["a", "b_1", "b_1-2", "city/c", "city/d"]
    assert len(list(place.parent.glob(place.name))) == (1 if form.startswith("one") else 4)
    assert_same(checked_folder(data), expected, keys=False)
    assert pickle.loads(pickle.dumps(data)) == data  # as it is sent to worker processes
    again = tmp_path / "again" / "x.tar"  # packed data can be packed
    again.parent.mkdir()
    pack(data, again)
    assert_same(open_data(again), expected, keys=False)


@pytest.mark.parametrize("form", FORMS)
def test_results_of_a_check_are_cached_until_a_file_changes(folder, tmp_path, monkeypatch, form):
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path / "cache"))
    data = open_data(packed(folder, tmp_path / "packed" / form))
    first = survey(data, use_cache=True)
    assert first.present["a"] == (0, 1, 300)
    monkeypatch.setattr("deop.data.check.read_mask", lambda *_: pytest.fail("it was read again"))
    assert survey(data, use_cache=True) == first
    file = next((tmp_path / "packed").glob("*.parquet" if form.endswith("parquet") else "*.tar"))
    file.touch()
    with pytest.raises(pytest.fail.Exception):
        survey(data, use_cache=True)


def test_tar_files_of_others(folder, tmp_path):
    """All spellings of masks, other parts of samples, hidden files, and keys that repeat in another file."""
    photo, mask = png(np.zeros((4, 5, 3), np.uint8)), png(np.ones((4, 5), np.uint8))
    jpeg = (folder / "images/a.jpg").read_bytes()
    jpeg_mask = (folder / "masks/a.png").read_bytes()
    write_tar(tmp_path / "0.tar", {
        "./x.jpg": jpeg, "./x.png": jpeg_mask, "./x.json": b"{}", "y.png": photo, "y.seg.png": mask, "._y.png": b"",
        "z.image.png": photo, "z.label.png": mask,
    })  # fmt: skip
    write_tar(tmp_path / "1.tar", {"d/x.png": photo, "d/x.mask.png": mask, "x.JPG": jpeg, "x.PNG": jpeg_mask})
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    data = open_data(tmp_path / "{0..1}.tar")
    assert [pair.key for pair in data.pairs] == ["0/x", "0/y", "0/z", "1/d/x", "1/x"]
    assert checked_folder(data) == data
    assert [data.labels(pair).shape for pair in data.pairs] == [(20, 30), (4, 5), (4, 5), (4, 5), (20, 30)]


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_keys_are_never_paths_to_other_places(tmp_path):
    """Label maps are saved under keys."""
    write_tar(tmp_path / "0.tar", {
        "../../x.png": png(np.zeros((4, 5, 3), np.uint8)), "../../x.mask.png": png(np.ones((4, 5), np.uint8))
    })  # fmt: skip
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    assert [pair.key for pair in open_data(tmp_path / "0.tar").pairs] == ["000000"]


# --- Parquet files of others


@pytest.mark.parametrize("kind", ["bytes", "struct", "path", "struct of path"])
def test_parquet_files_of_others(folder, tmp_path, kind):
    expected = open_folder(folder)

    def cell(path):
        content, name = path.read_bytes(), str(path.relative_to(tmp_path))
        return {"bytes": content, "struct": {"bytes": content, "path": None}, "path": name,
                "struct of path": {"bytes": None, "path": name}}[kind]  # fmt: skip

    table = pa.table({
        "photo": [cell(pair.photo) for pair in expected.pairs],
        "label": list(range(5)),  # of the whole photo, not a mask
        "truth": [cell(pair.mask) for pair in expected.pairs],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"--mask-column .* with one of truth"):
        open_data(tmp_path / "x.parquet", classes=folder / "classes.json")
    data = open_data(tmp_path / "x.parquet", classes=folder / "classes.json", mask_column="truth")
    assert_same(data, expected, keys=False)
    assert len({pair.key for pair in data.pairs}) == 5


def test_hugging_face_datasets(folder, tmp_path):
    """Files that the library writes, with its splits and the names of its features."""
    datasets = pytest.importorskip("datasets")
    expected = open_folder(folder)
    names = ["other", "cat"]
    features = datasets.Features({
        "image": datasets.Image(), "annotation": datasets.Image(), "scene": datasets.ClassLabel(names=["in", "out"]),
        "classes": datasets.Sequence(datasets.ClassLabel(names=names)),
    })  # fmt: skip
    rows = {"image": [str(pair.photo) for pair in expected.pairs],
            "annotation": [Image.fromarray((expected.ids(pair) == 1).astype(np.uint8)) for pair in expected.pairs],
            "scene": [0] * 5, "classes": [[0, 1]] * 5}  # fmt: skip
    made = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "hf/data").mkdir(parents=True)
    made.to_parquet(tmp_path / "hf/data/validation-00000-of-00001.parquet")
    made.select([0]).to_parquet(tmp_path / "hf/data/train-00000-of-00001.parquet")
    assert splits_of(tmp_path / "hf") == ("train", "val")
    data = open_data(tmp_path / "hf")
    assert data.names == ("other", "cat")
    assert len(open_data(tmp_path / "hf", "train").pairs) == 1
    for one, other in zip(data.pairs, expected.pairs, strict=True):
        np.testing.assert_array_equal(read_photo(image_source(one.photo)), read_photo(other.photo))
        np.testing.assert_array_equal(data.labels(one), expected.ids(other) == 1)
    (tmp_path / "id2label.json").write_text('{"1": "cat"}')
    assert open_data(tmp_path / "hf", classes=tmp_path / "id2label.json").names == ("cat",)


def test_packed_parquet_is_read_by_hugging_face_datasets(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    place = packed(folder, tmp_path / "packed/one.parquet")
    rows = datasets.Dataset.from_parquet(str(place), cache_dir=str(tmp_path / "cache"))
    expected = open_folder(folder)
    for row, pair in zip(rows, expected.pairs, strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), expected.ids(pair))
        assert row["image"].size == Image.open(pair.photo).size


def test_results_of_a_batch_are_labelled_data(folder, tmp_path):
    """Its label maps begin with id 1, and its names are in the settings that it records."""
    expected = open_folder(folder)
    maps = [png((expected.ids(pair) == 1).astype(np.uint8)) for pair in expected.pairs]
    table = pa.table({"id": ["a", "b", "c", "d", "e"], "path": [str(pair.photo) for pair in expected.pairs],
                      "labels": [*maps[:4], None]})  # fmt: skip
    (tmp_path / "out/_deop").mkdir(parents=True)
    pq.write_table(table, tmp_path / "out/part-000000.parquet")
    (tmp_path / "out/_deop/settings.json").write_text('{"names": [["cat", "kitten"], ["wall"]]}')
    with pytest.raises(DataError, match=r"part-000000.parquet, row 4 has no mask in the column 'labels'.*skip-broken"):
        open_data(tmp_path / "out")
    data = open_data(tmp_path / "out", skip_unpaired=True)
    assert data.names == ("cat|kitten", "wall")
    assert [pair.key for pair in data.pairs] == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(data.labels(data.pairs[0]) == 0, expected.ids(expected.pairs[0]) == 1)


@pytest.mark.parametrize("form", FORMS)
def test_files_in_an_object_store(folder, tmp_path, form):
    """fsspec's file system in memory stands for one."""
    fsspec = pytest.importorskip("fsspec")
    place = packed(folder, tmp_path / "packed" / form, shard_mb=0.003)
    memory = fsspec.filesystem("memory")
    memory.put(str(place.parent), f"/{tmp_path.name}/", recursive=True)
    for address in (f"memory://{tmp_path.name}/packed/{place.name}", f"memory://{tmp_path.name}/packed"):
        data = open_data(address)
        assert_same(data, open_folder(folder), keys=False)
        assert str(data.pairs[0].photo).startswith("memory://")
        assert survey(data, use_cache=True).photos == 5


def test_memory_is_bounded_by_row_groups(tmp_path, monkeypatch):
    """Of many row groups, those that were read last are kept, up to a number of bytes."""
    rng = np.random.default_rng(0)
    cells = [png(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(20)]
    table = pa.table({"image": cells, "mask": [png(np.ones((32, 32), np.uint8))] * 20})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2, compression="none")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    data = open_data(tmp_path / "x.parquet")
    monkeypatch.setattr(entries, "MAX_CACHED", 20_000)  # three groups of two photos
    entries.forget_row_groups()
    reads = []
    original = entries.read_columns

    def counted(file, group, columns):
        reads.append(group)
        return original(file, group, columns)

    monkeypatch.setattr(entries, "read_columns", counted)
    for number in rng.permutation(20):
        np.testing.assert_array_equal(
            read_photo(image_source(data.pairs[number].photo)), np.asarray(Image.open(io.BytesIO(cells[number])))
        )
        assert sum(column.nbytes for column in entries._row_groups._columns.values()) <= 20_000
    reads.clear()
    for pair in data.pairs:
        pair.photo.read()
    assert sorted(reads) == sorted(set(reads))  # in order, each group is read once


# --- Bad input


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"mask": [b"x"]}, {}, r"no column with a usual name for images .*give --image-column"),
        ({"image": [b"x"]}, {}, r"no column with a usual name for masks"),
        ({"image": [b"x"], "mask": [b"x"]}, {"image_column": "photo"}, r"no column 'photo': .*with one of image, mask"),
        ({"image": [b"x"], "mask": [b"x"]}, {"mask_column": "image"}, "cannot have both"),
        ({"image": [b"x"], "mask": [1]}, {"mask_column": "mask"}, r"'mask' .* has values of type int64: expected the"),
        ({"image": [b"x", None], "mask": [None, b"x"]}, {}, r"row 0 has no mask in the column 'mask', and 1 more"),
        ({"image": pa.array([], pa.binary()), "mask": pa.array([], pa.binary())}, {}, "no photos with masks"),
    ],
    ids=range(7),
)
def test_bad_columns_are_named(tmp_path, columns, options, message):
    write_parquet(tmp_path / "x.parquet", **columns)
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "x.parquet", **options)


def test_bad_cells_are_named_with_their_row(folder, tmp_path):
    photo, mask = png(np.zeros((4, 5, 3), np.uint8)), png(np.ones((4, 5), np.uint8))
    jpeg = (folder / "images/a.jpg").read_bytes()
    write_parquet(
        tmp_path / "x.parquet",
        image=[photo, photo, b"no photo", photo, photo[:40]],
        mask=[mask, png(np.ones((5, 4), np.uint8)), mask, jpeg, mask],
    )
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    data = open_data(tmp_path / "x.parquet")
    found = {(finding.kind, finding.file.rpartition("/")[2]) for finding in survey(data).findings}
    assert found == {
        ("size", "x.parquet, row 1, column 'mask'"), ("broken photo", "x.parquet, row 2, column 'image'"),
        ("broken mask", "x.parquet, row 3, column 'mask'"), ("broken photo", "x.parquet, row 4, column 'image'"),
    }  # fmt: skip
    with pytest.raises(
        DataError, match=r"x\.parquet, row 1, column 'mask': 4 x 5, its photo row 1, column 'image' 5 x 4"
    ):
        checked_folder(data)
    assert len(checked_folder(data, skip_broken=True).pairs) == 1
    with pytest.raises(DataError, match=r"x\.parquet, row 1, column 'mask' is 4 x 5"):
        data.ids(data.pairs[1])


def test_tar_files_without_masks_and_without_partners(tmp_path):
    photo, mask = png(np.zeros((4, 5, 3), np.uint8)), png(np.ones((4, 5), np.uint8))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    write_tar(tmp_path / "0.tar", {"a.png": photo, "b.png": photo})
    with pytest.raises(DataError, match=r"0\.tar/a\.png: the photo has no mask.*and 1 more"):
        open_data(tmp_path / "0.tar")
    with pytest.raises(DataError, match="no photos with masks"):
        open_data(tmp_path / "0.tar", skip_unpaired=True)
    files = {"a.png": photo, "a.mask.png": mask, "b.mask.png": mask, "c.jpg": photo, "c.jpeg": photo, "c.png": mask}
    write_tar(tmp_path / "1.tar", files)
    data = open_data(tmp_path / "1.tar", skip_unpaired=True)
    assert [pair.key for pair in data.pairs] == ["a"]
    reasons = " ".join(entry.reason for entry in data.unpaired)
    assert "b.mask.png: the mask has no photo" in reasons
    assert "2 photos and 1 masks have the same name" in reasons
    write_tar(tmp_path / "2.tar", {"a.txt": b"no image"})
    with pytest.raises(DataError, match="no photos with masks"):
        open_data(tmp_path / "2.tar")


@pytest.mark.parametrize("share", [0.1, 0.45, 0.9, "end", "garbage", "empty"])
def test_a_cut_tar_file_is_reported_and_its_complete_part_used(folder, tmp_path, share):
    place = packed(folder, tmp_path / "packed/one.tar")
    content = place.read_bytes()
    with tarfile.open(place) as archive:
        members = archive.getmembers()
    end = members[-1].offset_data + -(-members[-1].size // 512) * 512
    if share == "garbage":
        content = content[: members[4].offset] + b"\x01" * 2000
    elif share == "empty":
        content = b""
    else:
        content = content[: end if share == "end" else int(share * end)]  # at the end of a member, or within
    place.write_bytes(content)
    with pytest.raises(DataError, match=r"one\.tar is incomplete or damaged"):
        open_data(place)
    if share in (0.1, "empty"):
        with pytest.raises(DataError, match="no photos with masks"):
            open_data(place, skip_unpaired=True)
        return
    data = open_data(place, skip_unpaired=True)
    complete = sum(second.offset_data + second.size <= len(content) for second in members[1::2])
    assert len(data.pairs) == (2 if share == "garbage" else complete)
    assert len(checked_folder(data, skip_broken=True).pairs) == len(data.pairs)


def test_a_file_that_shrinks_after_it_was_opened_is_reported(folder, tmp_path):
    place = packed(folder, tmp_path / "packed/one.tar")
    data = open_data(place)
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot read .*one\.tar/city/d\.jpg: .* is shorter than when it was opened"):
        image_source(data.pairs[-1].photo)


@pytest.mark.parametrize("name", ["x.parquet", "x.tar"])
def test_damaged_and_missing_files_are_named(folder, tmp_path, name):
    place = packed(folder, tmp_path / "packed" / name)
    with pytest.raises(DataError, match=r"no files match .*nothing"):
        open_data(tmp_path / f"nothing-{name}")
    with pytest.raises(DataError, match=r"no files match .*\{0\.\.1\}"):
        open_data(tmp_path / f"{{0..1}}-{name}")
    place.write_bytes(b"something else" * 100)
    with pytest.raises(DataError, match=rf"{name}"):
        open_data(place)
    place.unlink()
    pack(open_folder(folder), place)
    (tmp_path / "packed/classes.json").unlink()
    with pytest.raises(DataError, match=rf"has no classes\.json beside {name}.*--classes-json"):
        open_data(place)
    with pytest.raises(DataError, match=r"cannot read .*none\.json"):
        open_data(place, classes=tmp_path / "none.json")


def test_other_kinds_of_input_are_refused(folder, tmp_path):
    for name in ("photo.jpg", "list.txt", "shards.tar.gz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="decompress it with gunzip"):
        open_data(tmp_path / "shards.tar.gz")
    for name in ("photo.jpg", "list.txt"):
        with pytest.raises(DataError, match=f"{name} is no labelled data: give a folder"):
            open_data(tmp_path / name)
    with tarfile.open(tmp_path / "x.tar", "w:gz") as archive:
        archive.add(folder / "classes.json", "classes.json")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    with pytest.raises(DataError, match=r"x\.tar is compressed \(gzip\): decompress it"):
        open_data(tmp_path / "x.tar")
    with pytest.raises(SettingError, match="columns apply to Parquet files"):
        open_data(folder, image_column="image")
    with pytest.raises(DataError, match="has no splits, so no split 'val'"):
        open_data(tmp_path / "x.tar", "val")
    packed(folder, tmp_path / "mixed/x.tar")
    packed(folder, tmp_path / "mixed/x.parquet")
    with pytest.raises(DataError, match="only files of one kind"):
        open_data(tmp_path / "mixed")


def test_splits_are_directories_or_the_beginning_of_file_names(folder, tmp_path):
    for name in ("train/0.tar", "validation/0.tar"):
        (tmp_path / "sub" / name).parent.mkdir(parents=True)
        pack(open_folder(folder), tmp_path / "sub" / name)
    assert splits_of(tmp_path / "sub") == ("train", "val")
    for split in (None, "val", "validation", "train"):
        assert len(open_data(tmp_path / "sub", split).pairs) == 5
    assert len(open_data(tmp_path / "sub", "all").pairs) == 10
    with pytest.raises(DataError, match=r"no split 'test' .*: it has the splits train, val"):
        open_data(tmp_path / "sub", "test")
    packed(folder, tmp_path / "flat/part-{}.parquet", shard_mb=0.003)
    assert splits_of(tmp_path / "flat") == (None,)
    assert len(open_data(tmp_path / "flat").pairs) == 5
    with pytest.raises(DataError, match="its files name no splits"):
        open_data(tmp_path / "flat", "train")


def test_packing_refuses_what_would_be_lost(folder, tmp_path):
    data = open_folder(folder)
    pack(data, tmp_path / "x-{}.tar", shard_mb=0.003)
    with pytest.raises(SettingError, match=r"x-00000\.tar exists"):
        pack(data, tmp_path / "x-{}.tar")
    with pytest.raises(SettingError, match="lists other classes"):
        pack(replace(data, classes=data.classes[:1]), tmp_path / "y.tar")
    assert not (tmp_path / "y.tar").exists()
    for name in ("x.zip", "x", "x-{}-{}.tar"):
        with pytest.raises(SettingError, match="cannot pack into"):
            pack(data, tmp_path / name)
    with pytest.raises(SettingError, match="0 MB"):
        pack(data, tmp_path / "z.tar", shard_mb=0)
    (folder / "images/city/c.webp").write_bytes(b"no photo")
    for name in ("z.tar", "z.parquet"):
        with pytest.raises(DataError, match=r"city/c\.webp: it is no image, or damaged"):
            pack(data, tmp_path / name)
        assert not [path for path in tmp_path.iterdir() if "z." in path.name]
    assert read_classes(tmp_path / "classes.json") == data.classes
