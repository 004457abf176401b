"""Data sets as folders: what is there is read, what is wrong is named."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.data.folder import open_folder
from deop.errors import DataError


def write(folder, count=2, size=(4, 6), classes=((1, "cat"), (7, "wall"))):
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        Image.new("RGB", size[::-1]).save(folder / "images" / f"p{index}.jpg")
        ids = np.zeros(size, np.uint8)
        ids[0, :4] = 1, 7, 255, 9
        Image.fromarray(ids).save(folder / "masks" / f"p{index}.png")
    entries = [{"id": number, "name": name, "isthing": True} for number, name in classes]
    (folder / "classes.json").write_text(json.dumps(entries))


def test_ids_become_indices_and_what_is_not_listed_is_ignored(tmp_path):
    write(tmp_path)
    data = open_folder(tmp_path)
    assert data.names == ("cat", "wall")
    labels = data.labels(data.pairs[0])
    assert labels[0].tolist() == [0, 1, -1, -1, -1, -1]
    assert (labels[1:] == -1).all()


def test_zero_and_255_count_where_they_are_listed(tmp_path):
    write(tmp_path, classes=((0, "floor"), (255, "sky")))
    data = open_folder(tmp_path)
    assert data.labels(data.pairs[0])[0].tolist() == [-1, -1, 1, -1, 0, 0]


def test_sixteen_bits(tmp_path):
    write(tmp_path, count=1, classes=((300, "rare"), (1, "cat")))
    ids = np.full((4, 6), 300, np.uint16)
    Image.fromarray(ids).save(tmp_path / "masks" / "p0.png")
    data = open_folder(tmp_path)
    assert (data.labels(data.pairs[0]) == 0).all()


def test_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        write(tmp_path / split, count)
    (tmp_path / "val" / "classes.json").rename(tmp_path / "classes.json")
    (tmp_path / "train" / "classes.json").unlink()
    assert len(open_folder(tmp_path).pairs) == 2
    assert len(open_folder(tmp_path, "train").pairs) == 3
    assert (
        len(open_folder(tmp_path / "train", None).pairs) == 3
        if (tmp_path / "train" / "classes.json").exists()
        else True
    )
    with pytest.raises(DataError, match="it has the splits train, val"):
        open_folder(tmp_path, "test")


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(DataError, match="neither images/ nor splits"):
        open_folder(tmp_path)
    write(tmp_path)
    data = open_folder(tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "masks" / "p0.png")
    with pytest.raises(DataError, match=r"p0\.png is 6 x 5, its photo p0\.jpg 6 x 4"):
        data.labels(data.pairs[0])
    Image.new("RGB", (6, 4)).save(tmp_path / "masks" / "p0.png")
    with pytest.raises(DataError, match="mode RGB"):
        data.labels(data.pairs[0])
    (tmp_path / "masks" / "p0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read the mask .*p0\.png"):
        data.labels(data.pairs[0])
    (tmp_path / "masks" / "p1.png").unlink()
    with pytest.raises(DataError, match=r"photo p1\.jpg has no mask"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").write_text("{}")
    (tmp_path / "images" / "p1.jpg").unlink()
    with pytest.raises(DataError, match="there must be some"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").write_text('[{"id": 1}]')
    with pytest.raises(DataError, match="cannot read"):
        open_folder(tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match=r"no classes\.json"):
        open_folder(tmp_path)
