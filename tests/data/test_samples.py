"""Training samples do not depend on the worker, the order or the process."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from deop.data.augment import STAGE_3, Augmentation
from deop.data.folder import open_folder
from deop.data.samples import TrainingPhotos, binary_masks, collate
from deop.errors import DataError

SMALL = Augmentation(short_sides=(24, 40), crop=32, pad=32)
UNCHANGED = Augmentation(short_sides=None, crop=None, colour=False, flip=0, pad=None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path / "cache"))
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    source = np.random.default_rng(0)
    for index in range(5):
        size = (30 + index, 44)
        Image.fromarray(source.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"set/images/{index}.png")
        Image.fromarray(source.choice([0, 1, 7], size).astype(np.uint8)).save(tmp_path / f"set/masks/{index}.png")
    (tmp_path / "set/classes.json").write_text('[{"id": 1, "name": "cat", "isthing": true}, {"id": 7, "name": "wall"}]')
    return open_folder(tmp_path / "set")


def equal(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.classes, other.classes) and one.size == other.size


def test_a_sample_depends_on_seed_epoch_and_index_only(folder):
    photos = TrainingPhotos(folder, SMALL, seed=3)
    first = {(epoch, index): photos.sample(epoch, index) for epoch in range(2) for index in range(5)}
    again = TrainingPhotos(folder, SMALL, seed=3)
    for place in reversed(first):
        assert equal(again[place], first[place])
    assert equal(photos[2], first[0, 2])
    assert not equal(first[0, 2], first[1, 2])
    assert not equal(TrainingPhotos(folder, SMALL, seed=4)[0, 2], first[0, 2])


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_samples(folder):
    photos = TrainingPhotos(folder, SMALL, seed=3)
    places = [(epoch, index) for epoch in range(2) for index in range(5)]
    alone = [photos[place] for place in places]
    loaders = [
        DataLoader(photos, sampler=places, batch_size=None, num_workers=workers, multiprocessing_context=context)
        for workers, context in ((0, None), (2, "spawn"))
    ]
    for loader in loaders:
        assert all(equal(one, other) for one, other in zip(loader, alone, strict=True))


def test_shapes_types_and_void(folder):
    photos = TrainingPhotos(folder, SMALL, seed=0)
    assert (len(photos), photos.names, photos.things) == (5, ("cat", "wall"), (True, None))
    sample = photos[0, 0]
    assert (sample.pixels.shape, sample.pixels.dtype) == ((3, 32, 32), torch.uint8)
    assert (sample.classes.shape, sample.classes.dtype) == ((32, 32), torch.int64)
    assert set(sample.classes.unique().tolist()) <= {-1, 0, 1}
    height, width = sample.size
    assert (sample.pixels[:, height:] == 128).all()
    assert (sample.classes[:, width:] == -1).all()
    assert sample.photo.name == "0.png"


def test_without_augmentation_a_sample_is_the_photo_and_its_truth(folder):
    sample = TrainingPhotos(folder, UNCHANGED, seed=0)[0, 1]
    pair = folder.pairs[1]
    np.testing.assert_array_equal(sample.pixels.permute(1, 2, 0), np.asarray(Image.open(pair.photo)))
    np.testing.assert_array_equal(sample.classes, folder.labels(pair))


def test_binary_masks_are_one_for_each_class_present():
    classes = torch.tensor([[2, -1, 2], [0, 0, -1]])
    labels, masks = binary_masks(classes)
    assert labels.tolist() == [0, 2]
    assert masks.tolist() == [[[False] * 3, [True, True, False]], [[True, False, True], [False] * 3]]
    assert (masks.sum(0) == (classes >= 0)).all()
    labels, masks = binary_masks(torch.full((2, 3), -1))
    assert (labels.shape, masks.shape) == ((0,), (0, 2, 3))


def test_samples_of_different_sizes_are_padded_to_one(folder):
    photos = TrainingPhotos(folder, UNCHANGED, seed=0)
    batch = collate([photos[0, index] for index in range(5)], divisor=32)
    assert batch.pixels.shape == (5, 3, 64, 64)
    assert batch.sizes == ((30, 44), (31, 44), (32, 44), (33, 44), (34, 44))
    for index, (height, width) in enumerate(batch.sizes):
        assert torch.equal(batch.pixels[index, :, :height, :width], photos[0, index].pixels)
        assert (batch.pixels[index, :, height:] == 128).all()
        assert (batch.classes[index, :, width:] == -1).all()
    assert [len(labels) for labels, _ in batch.targets()] == [2] * 5


def test_broken_photos_are_refused_before_the_first_sample_or_left_out(folder):
    folder.pairs[3].photo.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken photo images/3\.png.*skip_broken"):
        TrainingPhotos(folder, SMALL, seed=0)
    assert len(TrainingPhotos(folder, SMALL, seed=0, skip_broken=True)) == 4


def test_real_photos_at_the_sizes_of_the_paper(data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", str(tmp_path))
    photos = TrainingPhotos(open_folder(data_folder / "camvid-mini", "val"), STAGE_3, seed=0)
    sample = photos[0, 0]
    assert sample.pixels.shape == (3, 640, 640)
    labels, masks = sample.targets()
    assert len(labels) == len(masks) > 1
