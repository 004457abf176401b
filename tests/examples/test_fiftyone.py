"""examples/fiftyone, with classes of the arguments that FiftyOne documents: it is very large and starts a database."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from tests.batch.test_formats import BROKEN, NAMES, write_batch


class Sample(dict):
    """A sample has fields, by name."""

    def __init__(self, filepath, **fields):
        super().__init__(filepath=filepath, **fields)


class Dataset(list):
    """A list of samples."""

    existing: "list[Dataset]" = []  # noqa: RUF012

    def __init__(self, name, persistent=False, overwrite=False):
        super().__init__()
        self.name, self.persistent, self.overwrite = name, persistent, overwrite
        self.fields, self.calls = {}, 0
        self.existing.append(self)

    def add_samples(self, samples):
        self.extend(samples)
        self.calls += 1

    def add_sample_field(self, name, kind):
        self.fields[name] = kind


@pytest.fixture
def fiftyone(monkeypatch):
    names = ("Detection", "Detections", "Segmentation")
    labels = {name: type(name, (SimpleNamespace,), {}) for name in names}
    module = SimpleNamespace(Sample=Sample, Dataset=Dataset, StringField="text", **labels)
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    monkeypatch.setattr(Dataset, "existing", [])


@pytest.mark.usefixtures("fiftyone")
def test_a_data_set_of_a_batch(example, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    expected = write_batch(tmp_path / "batch", "panoptic", source=photos)
    for number in range(7):
        place = photos / f"{number % 2}/photo {number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    browse = example("fiftyone/browse.py")
    monkeypatch.setattr(browse, "SAMPLES", 3)
    monkeypatch.setattr(sys, "argv", ["browse.py", str(tmp_path / "batch"), "--dataset", "mine", "--no-app"])
    browse.main()
    assert "7 photos in FiftyOne's data set mine" in capsys.readouterr().out
    (dataset,) = Dataset.existing
    assert (dataset.name, dataset.persistent, dataset.overwrite, dataset.calls) == ("mine", True, True, 3)
    assert dataset.default_mask_targets == dict(enumerate(NAMES, 1))
    assert dataset.fields == {"error": "text"}
    for number, (sample, result) in enumerate(zip(dataset, expected, strict=True)):
        assert sample["filepath"] == str(photos / sample["deop_id"])
        if number == BROKEN:
            assert (sample["error"], "segments" in sample) == ("broken", False)
            continue
        assert sample["error"] is None
        np.testing.assert_array_equal(sample["labels"].mask, result.label_map + 1)
        assert [one.label for one in sample["segments"].detections] == [segment.name for segment in result.segments]


@pytest.mark.usefixtures("fiftyone")
def test_a_photo_that_is_not_on_this_machine(example, tmp_path):
    write_batch(tmp_path, source="s3://bucket")
    browse = example("fiftyone/browse.py")
    with pytest.raises(SystemExit, match="FiftyOne needs a file"):
        browse.build(browse.BatchResults(str(tmp_path)), "mine")
