"""``deop evaluate`` and ``deop prepare`` on Parquet and tar files."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo

pytest.importorskip("pyarrow")


@pytest.fixture
def dataset(here):
    """A data set with two splits of two photos, of one class each beside void."""
    for split in ("train", "val"):
        for number in range(2):
            write_photo(here / f"data/{split}/images/{number}.png", seed=number)
            ids = np.repeat(np.array([[1, 2, 0, 255]], np.uint8), 24, axis=1).repeat(64, axis=0)
            (here / f"data/{split}/masks").mkdir(exist_ok=True)
            Image.fromarray(ids).save(here / f"data/{split}/masks/{number}.png")
    (here / "data/classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}]))
    return "data"


@pytest.mark.parametrize("form", ["val.parquet", "val-{}.tar"])
def test_packed_data_is_checked_and_evaluated_like_the_folder(deop, dataset, here, form, tiny_clip):
    done = deop("prepare", "pack", dataset, f"packed/{form}", "--split", "val", "--shard-mb", "0.001")
    assert done.code == 0, done.err
    assert "packed 2 photos into packed/val" in done.err
    place = "packed" if "{}" in form else f"packed/{form}"
    assert deop("prepare", "check", place).code == 0
    for data, out in ((dataset, "folder"), (place, "packed-results")):
        outputs = ["--json", f"{out}.json", "--save-maps", f"{out}-maps"]
        done = deop("evaluate", data, "--model", tiny_clip, "--proposals", "oracle", *outputs, "--resamples", 20)
        assert done.code == 0, done.err
    results = [json.loads((here / f"{out}.json").read_text()) for out in ("folder", "packed-results")]
    for result in results:
        del result["seconds_per_image"], result["data"]
    assert results[0] == results[1]
    for number in range(2):
        one, other = (np.asarray(Image.open(here / f"{out}-maps/{number}.png")) for out in ("folder", "packed-results"))
        np.testing.assert_array_equal(one, other)


def test_columns_and_classes_are_options(deop, dataset, here, tiny_clip):
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = {kind: [(here / f"data/val/{kind}/{n}.png").read_bytes() for n in range(2)] for kind in ("images", "masks")}
    pq.write_table(pa.table({"left": cells["images"], "right": cells["masks"]}), here / "x.parquet")
    options = ["--image-column", "left", "--mask-column", "right", "--classes-json", "data/classes.json"]
    done = deop("prepare", "check", "x.parquet", *options, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["splits"]["all"]["photos"] == 2
    done = deop("prepare", "pack", "x.parquet", "again/x.tar", *options)
    assert done.code == 0, done.err
    model = ["--model", tiny_clip, "--proposals", "oracle"]
    done = deop("evaluate", "x.parquet", *options, *model, "--limit", 1, "--resamples", 5)
    assert done.code == 0, done.err
    for left_out, message in ((0, "--image-column"), (2, "--mask-column"), (4, "--classes-json")):
        done = deop("evaluate", "x.parquet", *options[:left_out], *options[left_out + 2 :])
        assert done.code == 1
        assert message in done.err


def test_broken_rows_are_skipped_and_listed(deop, here, tiny_clip):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_photo(here / "photo.png")
    photo = (here / "photo.png").read_bytes()
    Image.fromarray(np.ones((64, 96), np.uint8)).save(here / "mask.png")
    mask = (here / "mask.png").read_bytes()
    pq.write_table(pa.table({"image": [photo, photo, b"no"], "mask": [mask, None, mask]}), here / "x.parquet")
    (here / "classes.json").write_text('[{"id": 1, "name": "cat"}]')
    done = deop("evaluate", "x.parquet")
    assert done.code == 1
    assert "x.parquet, row 1 has no mask in the column 'mask'; `deop prepare check x.parquet` lists all" in done.err
    assert deop("prepare", "check", "x.parquet").code == 1
    options = ["--model", tiny_clip, "--proposals", "oracle", "--resamples", 5]
    done = deop("evaluate", "x.parquet", "--skip-broken", "--json", "-", *options)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["images"] == 1
    assert [place.rpartition("/")[2] for place in result["left_out"]] == [
        "x.parquet, row 1", "x.parquet, row 2, column 'image'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare", "pack", "data", "x.tar"), "data has the splits train, val: give --split"),
        (("prepare", "pack", "data", "x.zip", "--split", "val"), "cannot pack into x.zip: give FILE.parquet"),
        (("prepare", "pack", "nothing", "x.tar"), "no photos in nothing/val"),
        (("evaluate", "data", "--mask-column", "label"), "columns apply to Parquet files, and data is none"),
        (("evaluate", "nothing/*.parquet"), "no files match nothing/*.parquet: check the path"),
        (("evaluate", "x-{0..3}.tar"), "no files match x-{0..3}.tar: check the path"),
        (("evaluate", "s3-list.txt"), "no photos in s3-list.txt/val"),
        (("train", "finetune", "--data", "nothing.tar"), "no files match nothing.tar"),
    ],
    ids=range(8),
)
def test_mistakes_are_explained(deop, dataset, arguments, message):
    done = deop(*arguments)
    assert done.code in (1, 2)
    assert message in " ".join(done.err.split())
