"""The Python interface on the base install."""

import numpy as np
import pytest
from PIL import Image

import deop
from deop.errors import DeopError, SettingError, VocabularyError
from tests.light.conftest import EXAMPLES


def test_the_example_of_the_readme(model, tmp_path):
    result = model.segment(EXAMPLES / "chelsea.png", ["cat", "sofa|couch", "wall"])
    assert result.label_map.dtype == np.int32
    assert result.label_map.shape == (300, 451)
    assert result.names[result.label_map[150, 225]] == "cat"
    first = result.segments[0]
    assert first.name == "cat"
    assert first.mask.shape == (300, 451)
    assert first.mask.dtype == bool
    assert first.mask.sum() == first.area
    assert isinstance(result.overlay(), Image.Image)
    assert result.cutout("cat").mode == "RGBA"
    assert result.save(tmp_path / "out.png").exists()
    assert result.to_coco()["annotations"]


@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_every_mode(model, cat, mode):
    result = model.segment(cat, "cat, wall", mode=mode, threshold=0.1, things="cat")
    areas = [segment.area for segment in result.segments]
    assert result.segments[0].name == "cat"
    assert areas[0] > 0.5 * cat.shape[0] * cat.shape[1]
    if mode != "semantic":
        assert sum(areas) <= cat.shape[0] * cat.shape[1], "segments do not overlap"


def test_names_in_another_order_and_with_synonyms_give_the_same_map(model, cat):
    first = model.segment(cat, "cat, wall, sofa")
    second = model.segment(cat, "sofa, wall, cat")
    names = [np.array([*result.names, "none"])[result.label_map] for result in (first, second)]
    assert (names[0] == names[1]).mean() > 0.9999, "the same but for rounding"
    synonyms = model.segment(cat, "kitten|cat, wall")
    assert (synonyms.label_map == 0).mean() > 0.5


def test_encode_once_label_often(model, cat):
    (encoded,) = model.encode([cat])
    for names in ("cat, wall", "cat, background", "dog, wall"):
        labelled = model.label(encoded, names)
        direct = model.segment(cat, names)
        assert (labelled.label_map == direct.label_map).all()
    assert (model.label(encoded, "cat, wall", threshold=0.99).label_map == -1).any()


def test_many_photos_in_batches_and_in_the_background(model, cat):
    from deop.batch import segment_stream

    photos = [cat, cat[:, ::-1], cat[:100, :150], Image.fromarray(cat).convert("L")]
    together = model.segment(photos, "cat, wall")
    streamed = list(segment_stream(model, photos, model.vocabulary("cat, wall"), batch=2))
    for photo, result, other in zip(photos, together, streamed, strict=True):
        assert result.label_map.shape == np.asarray(photo).shape[:2]
        assert (result.label_map == other.label_map).all()


def test_embeddings_of_names_are_arrays(model):
    classes = model.embed(model.vocabulary("cat, kitten, sky"))
    assert isinstance(classes.rows, np.ndarray)
    assert isinstance(classes.owner, np.ndarray)
    rows = classes.rows[[list(classes.owner).index(index) for index in range(3)]]
    similarity = rows @ rows.T
    assert similarity[0, 1] > similarity[0, 2], "a kitten is closer to a cat than the sky is"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"classes": ""}, VocabularyError),
        ({"classes": "cat", "mode": "boxes"}, SettingError),
        ({"classes": "cat", "threshold": 2}, SettingError),
        ({"classes": "cat", "severance": "unheard-of"}, DeopError),
    ],
    ids=str,
)
def test_wrong_arguments(model, cat, arguments, kind):
    names = arguments.pop("classes")
    with pytest.raises(kind):
        model.segment(cat, names, **arguments)


@pytest.mark.parametrize("photo", ["absent.jpg", np.zeros((0, 3, 3), np.uint8), np.zeros((2, 2, 2, 2), np.uint8), None])
def test_wrong_photos(model, photo):
    with pytest.raises(DeopError):
        model.segment(photo, "cat")


@pytest.mark.parametrize(
    "options",
    [{"engine": "tensorflow"}, {"device": "tpu"}, {"dtype": "float8"}, {"engine": "onnx", "proposer": "a/b"}],
    ids=str,
)
def test_wrong_options_of_load(options):
    with pytest.raises(DeopError, match=str(next(iter(options.values()))) + "|proposer"):
        deop.load("nano", **options)


def test_the_settings_and_the_card_of_the_model(model):
    assert model.card.name == "nano"
    assert model.card.license
    assert model.device in ("cpu", None) or str(model.device) == "cpu"
