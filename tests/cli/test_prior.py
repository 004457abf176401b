"""``--prior`` and ``--partition``: results, records, evaluation, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo
from tests.proposals import tiny_networks


@pytest.fixture
def inputs(here):
    network = tiny_networks.mask2former()
    network.config.id2label = {0: "cat", 1: "couch", 2: "wall-other-merged"}
    network.config.label2id = {name: index for index, name in network.config.id2label.items()}
    network.save_pretrained(here / "proposer")
    photo = write_photo(here / "photo.png")
    return [photo, "--classes", "cats, sofa|couch, unicorn", "--device", "cpu", "--json", "-"]


def settings_of(done):
    assert done.code == 0, done.err
    return json.loads(done.out)["settings"]


def test_segment(deop, inputs, tiny_clip, here):
    model = ["--model", tiny_clip, "--proposer", here / "proposer"]
    plain = settings_of(deop("segment", *inputs, *model))
    assert not {"prior", "partition"} & set(plain)
    changed = settings_of(deop("segment", *inputs, *model, "--prior", 0.3, "--partition", "score"))
    assert changed["prior"] == 0.3
    assert changed["partition"] == "score"
    assert settings_of(deop("segment", *inputs, *model, "--prior", 0)) == plain
    (here / "deop.toml").write_text('[segment]\nprior = 0.2\npartition = "score"\n')
    assert settings_of(deop("segment", *inputs, *model))["prior"] == 0.2


@pytest.mark.parametrize("source", [[], ["--engine", "onnx"], ["--masks", "masks.npy"]])
def test_sources_without_classes_are_refused(deop, inputs, here, source):
    np.save(here / "masks.npy", np.ones((1, 64, 96), bool))
    done = deop("segment", *inputs, "--prior", 0.3, *source)
    assert done.code
    assert "prior" in done.err
    assert ("--engine torch" if "onnx" in source else "--proposer") in " ".join(done.err.split())


def test_evaluate(deop, inputs, tiny_clip, here):
    write_photo(here / "data/images/0.jpg")
    ids = np.repeat(np.array([[1, 2]], np.uint8), 48, axis=1).repeat(64, axis=0)
    (here / "data/masks").mkdir()
    Image.fromarray(ids).save(here / "data/masks/0.png")
    (here / "data/classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "couch"}]))
    options = ["--resamples", 5, "--json", "-", "--prior", 0.3, "--partition", "score", "--model", tiny_clip]
    done = deop("evaluate", here / "data", *options, "--proposer", here / "proposer")
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    assert (scores["prior"], scores["partition"]) == (0.3, "score")
    done = deop("evaluate", here / "data", *options, "--proposals", "oracle")
    assert done.code
    assert "masks are given" in " ".join(done.err.split())
