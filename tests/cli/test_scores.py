"""``--scores``: softmax or sigmoid."""

import json

import numpy as np
import pytest

from tests.cli.conftest import write_photo
from tests.tiny import write_tiny_siglip


@pytest.fixture
def options(here):
    write_photo(here / "photo.png")
    return [here / "photo.png", "-c", "cat, dog", "--masks", "grid.npy", "--device", "cpu", "--json", "-"]


def test_both_forms_of_siglip(deop, options, here):
    masks = np.zeros((2, 64, 96), bool)
    masks[0, :, :40] = masks[1, :, 40:] = True
    np.save(here / "grid.npy", masks)
    model = ["--model", write_tiny_siglip(here / "siglip")]
    found = {}
    for form in ("sigmoid", "softmax", None):
        done = deop("segment", *options, *model, *([] if form is None else ["--scores", form]))
        assert done.code == 0, done.err
        found[form] = json.loads(done.out)
        del found[form]["seconds"]
    assert found[None] == found["sigmoid"]
    assert found[None]["settings"]["scores"] == "sigmoid"
    assert "scores" not in found["softmax"]["settings"]
    names = {form: [segment["name"] for segment in one["segments"]] for form, one in found.items()}
    scores = {form: [segment["score"] for segment in one["segments"]] for form, one in found.items()}
    assert names["sigmoid"] == names["softmax"]  # disjoint masks have the same best names
    assert min(scores["softmax"]) >= 0.5  # of two names
    assert max(scores["sigmoid"]) < 0.5


def test_a_model_without_a_bias_has_no_sigmoid(deop, here, tiny_clip):
    write_photo(here / "photo.png")
    done = deop("segment", here / "photo.png", "-c", "cat", "--scores", "sigmoid")
    assert done.code == 2
    assert "trained with a sigmoid" in " ".join(done.err.split())
