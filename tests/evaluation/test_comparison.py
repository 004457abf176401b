"""Severances compared on the same resamples: rows are plain evaluations, differences are paired."""

import json

import numpy as np
import pytest
from PIL import Image

from deop.data.folder import open_folder
from deop.errors import SettingError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.comparison import compare_severances
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.zoo import load
from tests.cli.conftest import deop, no_user_configuration  # noqa: F401

NAMES = ["self:residual=0.2:mlp=yes", "region", "naclip"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"images/{index}.png")
        ids = np.kron(rng.integers(1, 4, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
        Image.fromarray(ids).save(folder / f"masks/{index}.png")
    entries = [{"id": index + 1, "name": name} for index, name in enumerate(["cat", "dog", "wall"])]
    (folder / "classes.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def model(tiny_clip):
    return load(tiny_clip, device="cpu")


def test_rows_are_plain_evaluations_and_differences_are_paired(model, dataset):
    data, bootstrap, seen = open_folder(dataset), Bootstrap(50, seed=3), []
    rows = compare_severances(
        model, data, Protocol(proposals="oracle"), NAMES, lambda *at: seen.append(at), bootstrap=bootstrap
    )
    assert seen == [(done, 12) for done in range(1, 13)]
    counts = []
    for name, row in zip(NAMES, rows, strict=True):
        photos: list[np.ndarray] = []
        plain = evaluate(
            model, data, Protocol(proposals="oracle", severance=name), bootstrap=bootstrap,
            watch=lambda photo, photos=photos: photos.append(photo.confusion.counts),  # type: ignore[misc]
        )  # fmt: skip
        assert row["severance"] == name
        assert {key: row[key] for key in ("miou", "per_class", "intervals")} == {
            key: plain[key] for key in ("miou", "per_class", "intervals")
        }
        counts.append(np.stack(photos))
    # The differences by hand: the same photos are drawn for all rows.
    rng = np.random.default_rng(3)
    weights = rng.multinomial(4, np.full(4, 0.25), 50)
    drawn = []
    for photos in counts:
        hits, truth, predicted = np.einsum("rp,pkc->krc", weights, photos)
        union = truth + predicted - hits
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(np.nanmean(np.where(truth > 0, hits / union, np.nan), 1))
    for row, draws in zip(rows, drawn, strict=True):
        expected = np.percentile(draws - drawn[0], [2.5, 97.5])
        np.testing.assert_allclose(row["difference"]["miou"]["interval"], expected, atol=1e-12)
        assert row["difference"]["miou"]["gain"] == pytest.approx(row["miou"] - rows[0]["miou"])


def test_errors(model, dataset):
    data = open_folder(dataset)
    for names, message in ((["self"], "two or more"), (["self", "self"], "different"), (["self", "slef"], "unknown")):
        with pytest.raises(SettingError, match=message):
            compare_severances(model, data, Protocol(), names)


def test_command(deop, dataset, tiny_clip, tmp_path):  # noqa: F811
    arguments = ["evaluate", dataset, "--model", tiny_clip, "--proposals", "oracle", "--resamples", 20]
    done = deop(*arguments, "--severance", ",".join(NAMES), "--json", tmp_path / "rows.json")
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == NAMES
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["severance"] for row in rows] == NAMES
    done = deop(*arguments, "--severance", "self,region", "--json", "-")
    assert len(json.loads(done.out)) == 2
    done = deop(*arguments, "--severance", "self,region", "--report", tmp_path / "page")
    assert done.code
    assert "--report needs a single severance" in " ".join(done.err.split())
