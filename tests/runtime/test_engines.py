"""The same cases over both engines: labels on at least 99.9 % of the pixels, scores and records are equal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.batch import segment_stream
from deop.errors import ImageError, SettingError, VocabularyError
from deop.runtime import Model, read_runtime_config
from deop.severance import Severance
from deop.text.builtin import builtin_vocabulary
from deop.zoo import NANO

PHOTOS = Path(__file__).parents[1] / "fixtures" / "photos" / "images"
NAMES = "cat, person, cup, sky, table, wall"


@pytest.fixture(scope="module")
def engines():
    """Both engines with the built-in model."""
    return deop.load("nano", device="cpu"), deop.load("nano", engine="torch", device="cpu")


@pytest.fixture(scope="module")
def photos():
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PHOTOS.iterdir())]


@pytest.fixture(scope="module")
def encoded(engines, photos):
    """Each photo, encoded by both engines."""
    return list(zip(*(model.encode(photos) for model in engines), strict=True))


def agree(onnx, torch, share=0.999):
    """Check that two results of one photo are equal but for rounding."""
    assert onnx.names == torch.names
    assert onnx.settings == torch.settings
    assert onnx.mode == torch.mode
    assert (onnx.label_map == torch.label_map).mean() >= share
    assert [segment.name for segment in onnx.segments] == [segment.name for segment in torch.segments]
    assert [segment.isthing for segment in onnx.segments] == [segment.isthing for segment in torch.segments]
    scores = [[segment.score for segment in result.segments] for result in (onnx, torch)]
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-3)
    areas = [[segment.area for segment in result.segments] for result in (onnx, torch)]
    np.testing.assert_allclose(areas[0], areas[1], rtol=0.02, atol=(1 - share) * onnx.label_map.size)
    assert onnx.heatmaps.keys() == torch.heatmaps.keys()
    for name, heatmap in onnx.heatmaps.items():
        assert np.abs(heatmap - torch.heatmaps[name]).mean() < 1e-3


CASES = {
    "semantic": {},
    "panoptic": {"mode": "panoptic"},
    "instance": {"mode": "instance", "things": "cat, cup, person"},
    "threshold": {"threshold": 0.6},
    "thresholds": {"threshold": {"*": 0.2, "wall": 0.9}},
    "background": {"background": "floor, window"},
    "heatmaps": {"heatmaps": "cat, wall"},
    "panoptic with a threshold": {"mode": "panoptic", "threshold": 0.4, "background": "grass"},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.filterwarnings("ignore::deop.text.vocabulary.VocabularyWarning")
def test_options(engines, encoded, options):
    for photo in encoded:
        agree(*(model.label(one, NAMES, **options) for model, one in zip(engines, photo, strict=True)))


@pytest.mark.parametrize(
    "names",
    [
        "cat",
        ["kitten|cat", "cup|mug|glass", "background"],
        "cat, everything else",
        "Katze, façade, CAT",
        [f"thing {number}" for number in range(50)],
    ],
    ids=["one", "synonyms", "everything else", "odd letters", "many"],
)
@pytest.mark.filterwarnings("ignore::deop.text.vocabulary.VocabularyWarning")
def test_names(engines, encoded, names):
    agree(*(model.label(one, names) for model, one in zip(engines, encoded[1], strict=True)))


@pytest.mark.parametrize("name", ["coco", "ade20k", "cityscapes", "everyday"])
def test_built_in_vocabularies(engines, encoded, name):
    names = builtin_vocabulary(name)
    agree(*(model.label(one, names, mode="panoptic") for model, one in zip(engines, encoded[2], strict=True)))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (30, 2000), (449, 448), (33, 31), (1500, 90)])
def test_sizes(engines, size):
    """Also very long photos, which are narrower than the smallest input of the graph."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 255, (-(-size[0] // 16), -(-size[1] // 16), 3), np.uint8)
    photo = blocks.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]
    onnx, torch = (model.segment(photo, "cat, sky, wall") for model in engines)
    agree(onnx, torch, share=0.995)


def test_settings_of_labelling_can_be_changed(photos):
    models = deop.load("nano", device="cpu"), deop.load("nano", engine="torch", device="cpu")
    for model in models:
        model.settings = replace(model.settings, threshold=0.3, smallest_region=0.01, smallest_thing=0.02, claim=0.2)
    agree(*(model.segment(photos[0], NAMES, mode="panoptic") for model in models))


def test_class_probabilities(engines, encoded):
    probabilities = [
        np.asarray(model.class_probabilities(one, NAMES)) for model, one in zip(engines, encoded[0], strict=True)
    ]
    assert probabilities[0].dtype == probabilities[1].dtype == np.float32
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=2e-3)


def test_embeddings_of_names(engines):
    onnx, torch = (model.embed(model.vocabulary("cat, sofa|couch, background", background="sky")) for model in engines)
    assert onnx.names == torch.names
    assert (onnx.owner == torch.owner).all()
    np.testing.assert_allclose(onnx.rows, torch.rows, atol=1e-6)
    assert engines[0].text.identity == engines[1].text.identity


def test_streams(engines, photos):
    inputs = [photos[1], str(PHOTOS / "missing.jpg"), *sorted(map(str, PHOTOS.iterdir()))[:2]]
    results = [list(segment_stream(model, inputs, NAMES, mode="panoptic", batch=3)) for model in engines]
    for onnx, torch in zip(*results, strict=True):
        if isinstance(onnx, ImageError):
            assert str(onnx) == str(torch)
        else:
            agree(onnx, torch)
            assert onnx.source == torch.source


def masks_of(photo, count=5):
    """Rectangles, which may overlap."""
    random = np.random.default_rng(count)
    masks = np.zeros((count, *photo.shape[:2]), bool)
    for mask in masks:
        top, left = (int(random.integers(0, side // 2)) for side in mask.shape)
        height, width = (int(random.integers(side // 4, side // 2)) for side in mask.shape)
        mask[top : top + height, left : left + width] = True
    return masks


@pytest.mark.parametrize("count", [0, 1, 5])
def test_given_masks(engines, photos, count):
    if engines[0].config.onnx.graphs_of(None).regions is None:
        pytest.skip("the built-in model has no graph for given masks")
    masks = [masks_of(photo, count) for photo in photos[:2]]
    for mode in ("semantic", "instance"):
        results = [model.segment(photos[:2], NAMES, masks=masks, mode=mode, things=NAMES) for model in engines]
        for one, two in zip(*results, strict=True):
            agree(one, two)
    given = [deop.load("nano", engine=engine, device="cpu", proposer="given") for engine in ("onnx", "torch")]
    agree(*(model.segment(photos[0], NAMES, masks=masks[0]) for model in given))
    for model in given:
        assert model.needs_masks
        with pytest.raises(SettingError, match="this model has no proposer: give masks"):
            model.segment(photos[0], NAMES)


def test_given_masks_without_a_graph_for_them(photos):
    config = read_runtime_config(NANO)
    parts = replace(config.onnx, graphs={"float32": {"encode": "encode.onnx"}})
    model = Model(replace(config, onnx=parts))
    with pytest.raises(SettingError, match="exported without a graph for given masks"):
        model.segment(photos[0], NAMES, masks=masks_of(photos[0]))


def test_lists_of_photos(engines, photos):
    for one, two in zip(*(model.segment(photos[:3], NAMES, batch=2) for model in engines), strict=True):
        agree(one, two)
    assert engines[0].segment([], NAMES) == []


def test_videos(engines, tmp_path):
    pytest.importorskip("av")
    from deop.video.reading import open_video
    from deop.video.segmenting import segment_frames
    from tests.video.test_video import make_video

    make_video(tmp_path / "a.mp4", frames=3)
    results = []
    for model in engines:
        with open_video(tmp_path / "a.mp4") as (_, frames):
            results.append([item.result for item in segment_frames(model, frames, "cat, wall", smoothing=0.5)])
    for onnx, torch in zip(*results, strict=True):
        agree(onnx, torch, share=0.99)


def test_unusable_arguments_are_refused_by_both_in_the_same_words(engines, photos):
    for options in (
        {"mode": "semantics"},
        {"severance": "gates"},
        {"anchors": "centre"},
        {"classifier": "three-stream"},
        {"classifier": None},
        {"threshold": 2},
        {"heatmaps": "dog"},
        {"batch": 0},
    ):
        messages = []
        for model in engines:
            with pytest.raises((SettingError, VocabularyError)) as caught:
                model.segment(photos[0], NAMES, **options)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"severance": "gate"}, "severance 'self'"),
        ({"anchors": "decoder"}, "anchors 'pool'"),
        ({"classifier": "two-stream"}, "two-stream classifier"),
    ],
)
def test_what_only_torch_can_do(engines, photos, options, subject, monkeypatch):
    for installed in (True, False):
        monkeypatch.setattr("deop.runtime.engine.has_torch", lambda installed=installed: installed)
        for call in (
            engines[0].segment,
            lambda photo, names, **more: segment_stream(engines[0], [photo], names, **more),
        ):
            with pytest.raises(SettingError, match=subject) as caught:
                call(photos[0], NAMES, **options)
            assert '(engine="torch", --engine torch)' in str(caught.value)
            assert ('pip install "deop[torch]"' in str(caught.value)) is not installed


def test_values_of_the_exported_model_are_accepted(engines, photos):
    options = {"severance": "self", "anchors": "pool", "classifier": "one-pass"}
    agree(*(model.segment(photos[0], NAMES, **options) for model in engines))


@pytest.mark.parametrize(
    "change",
    [
        {"severance": Severance("none")},
        {"padding": "inside"},
        {"normalize_patches": True},
        {"drop_redundant": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_are_part_of_the_graph_are_not_ignored(photos, change):
    model = deop.load("nano", device="cpu")
    model.settings = replace(model.settings, **change)
    with pytest.raises(SettingError, match=f"exported with {next(iter(change))} .* is part of its graph"):
        model.segment(photos[0], NAMES)


def test_attributes_of_torch_models_are_explained(engines):
    for name in ("encoder", "proposer", "save_pretrained", "to"):
        with pytest.raises(AttributeError, match="torch engine"):
            getattr(engines[0], name)
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'colour'"):
        engines[0].colour
    assert not hasattr(engines[0], "proposer")


def test_what_the_models_say_about_themselves(engines):
    onnx, torch = engines
    assert isinstance(onnx, Model)
    assert isinstance(torch, deop.DeOP)
    assert onnx.settings == torch.settings
    assert onnx.card == torch.card
    for name in ("device_kind", "default_batch", "needs_masks"):
        assert getattr(onnx, name) == getattr(torch, name)
    assert onnx.device == "cpu"


def test_given_masks_without_a_pixel(engines, photos):
    """Both engines give them the embedding 0; a mask of a single pixel has one of length 1."""
    masks = np.zeros((3, *photos[0].shape[:2]), bool)
    masks[0, 50:, 30:], masks[1, 7, 9] = True, True
    encoded = [model.encode([photos[0]], [masks])[0] for model in engines]
    onnx, torch = (np.asarray(one.regions) for one in encoded)
    np.testing.assert_allclose(onnx, torch, atol=1e-3)
    for regions in (onnx, torch):
        np.testing.assert_allclose(np.linalg.norm(regions, axis=1), [1, 1, 0], atol=1e-5)
    assert encoded[1].heatmaps[:, 2].max() == 0 < encoded[1].heatmaps[:, 1].max()
