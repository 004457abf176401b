"""Arguments of any type: a result that is well-formed, or an error of deop. Nothing else comes out of the Python API.

The calls and the values are a table; hypothesis draws nested values and combinations of arguments that are allowed.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deop
from deop.batch.job import BatchOptions
from deop.batch.streaming import Failure, segment_stream
from deop.batch.worker import WorkerOptions
from deop.errors import DeopError
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment
from deop.settings import Settings
from deop.severance import Severance
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary
from tests.trust.bad_input import HEIGHT, WIDTH, write_quick_model

PHOTO = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
PHOTO[:, WIDTH // 2 :] = 200
LABELS = np.zeros((HEIGHT, WIDTH), np.int32)
LABELS[:, WIDTH // 2 :] = 1
RESULT = Segmentation.from_semantic(PHOTO, ["wall", "cat"], LABELS)
SEGMENT = {"name": "wall", "class_id": 0, "score": 0.5, "box": (0, 0, 2, 2), "area": 4, "shape": (HEIGHT, WIDTH),
           "pixels": np.zeros(1, np.uint8)}  # fmt: skip


class Foreign:
    """A class that deop does not know."""


VALUES = (
    None, True, 7, -1, 0, 10**30, 0.5, -0.5, math.nan, math.inf, 1j, "", "x", "a\0b", "\ud800", b"x", bytearray(b"x"),
    [], [1], [None], ["x"], [[]], [math.nan], ["a", "a"], (), (1, 2, 3), {}, {1: 2}, {"x": "y"}, {"x": None}, {1},
    frozenset("a"), object(), Foreign, lambda value: value, range(3), np.zeros((2, 2)), np.zeros(0), np.array(["x"]),
    np.float32(0.5), np.int64(3), np.datetime64("2020-01-01"), Path("x"), Ellipsis, NotImplemented,
)  # fmt: skip
"""A value of every type that may be passed by mistake."""

OF_RESULTS = {
    "overlay": ("alpha", "style", "names", "legend", "borders", "labels", "max_names", "font"),
    "cutout": ("names", "soft_edge", "crop"),
    "heatmap": ("name", "alpha", "maximum", "legend", "font"),
    "summary": ("rle",),
    "to_coco": ("image_id", "file_name", "first_id", "rle", "tolerance"),
    "to_panoptic": ("image_id", "file_name"),
    "to_polygons": ("tolerance",),
    "to_geojson": ("tolerance",),
    "to_yolo": ("tolerance",),
    "to_labelme": ("image_path", "tolerance", "masks"),
    "to_labelstudio": ("image", "polygons", "from_name", "tolerance"),
}
CONSTRUCTORS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "Segmentation": (Segmentation, {"names": ("wall", "cat"), "label_map": LABELS, "segments": [], "photo": PHOTO},
                     ("names", "label_map", "segments", "photo", "mode", "settings", "source", "heatmaps")),
    "from_semantic": (Segmentation.from_semantic, {"photo": PHOTO, "names": ["wall", "cat"], "label_map": LABELS},
                      ("photo", "names", "label_map", "confidence", "settings", "isthing", "source")),
    "from_panoptic": (Segmentation.from_panoptic, {"photo": PHOTO, "names": ["wall", "cat"], "segment_map": LABELS,
                      "pieces": [(0, 0.5, None), (1, 0.5, None)]}, ("photo", "names", "segment_map", "pieces")),
    "from_instances": (Segmentation.from_instances, {"photo": PHOTO, "names": ["wall", "cat"],
                       "instances": [((0, 0.5, None), LABELS == 0)]},
                       ("photo", "names", "instances", "settings", "label_map", "source")),
    "load": (Segmentation.load, {}, ("path",)),
    "Segment": (Segment, SEGMENT, (*SEGMENT, "isthing", "value")),
    "Vocabulary": (Vocabulary, {"synonyms": (("cat",),)},
                   ("synonyms", "background", "templates", "isthing", "source", "bank_weight")),
    "Vocabulary.parse": (Vocabulary.parse, {"names": ["cat"]}, ("names", "background", "templates", "things")),
    "Thresholds.parse": (Thresholds.parse, {}, ("value",)),
    "Severance": (Severance, {}, tuple(Severance.__dataclass_fields__)),
    "Severance.parse": (Severance.parse, {}, ("value",)),
    "Settings": (Settings, {}, tuple(Settings.__dataclass_fields__)),
    "BatchOptions": (BatchOptions, {"input": "in", "output": "out", "worker": WorkerOptions()},
                     tuple(BatchOptions.__dataclass_fields__)),
}  # fmt: skip
OF_MODELS = {
    "segment": ("photo", "names", "mode", "masks", "severance", "anchors", "classifier", "threshold", "background",
                "smallest_region", "templates", "things", "heatmaps", "bank", "bank_weight", "batch"),
    "label": ("encoded", "names", "mode", "threshold", "smallest_region", "background", "templates", "things",
              "heatmaps", "bank", "bank_weight"),
    "encode": ("photos", "masks", "severance", "anchors", "classifier"),
    "vocabulary": ("names", "background", "templates", "things", "bank", "bank_weight"),
}  # fmt: skip


def answer(function, name, value):
    """Call a function with a value of any type; the message of the error, or "" for a result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function(**{name: value})
        except DeopError as error:
            message = str(error)
            assert message, "an error without a message"
            return message
    if isinstance(result, Segmentation):
        check_result(result)
    return ""


def check_result(result):
    """The properties of every result."""
    height, width = result.photo.shape[:2]
    assert result.label_map.shape == (height, width)
    assert -1 <= result.label_map.min() <= result.label_map.max() < len(result.names)
    for segment in result.segments:
        assert 0 <= segment.class_id < len(result.names)
        assert result.names[segment.class_id] == segment.name
        assert 0 <= segment.score <= 1
        assert 0 < segment.area == segment.mask.sum() <= height * width
    for values in result.heatmaps.values():
        assert values.shape == (height, width)
        assert np.isfinite(values).all()
        assert 0 <= values.min() <= values.max() <= 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    loaded = deop.load(write_quick_model(tmp_path_factory.mktemp("models") / "quick"), engine="onnx", device="cpu")
    loaded.cache = None
    return loaded


@pytest.fixture(scope="module")
def encoded(model):
    return model.encode([PHOTO])[0]


def cases(table):
    return [(function, argument) for function, arguments in table.items() for argument in arguments]


@pytest.mark.parametrize(("method", "argument"), cases(OF_RESULTS), ids=str)
def test_methods_of_results(method, argument):
    base = {"cutout": {"names": "cat"}, "heatmap": {"name": "cat"}}.get(method, {})
    for value in VALUES:
        answer(lambda **given: getattr(RESULT, method)(**{**base, **given}), argument, value)


CONSTRUCTED = [(name, argument) for name, (_, _, arguments) in CONSTRUCTORS.items() for argument in arguments]


@pytest.mark.parametrize(("name", "argument"), CONSTRUCTED, ids=str)
def test_constructors(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, base, _ = CONSTRUCTORS[name]
    for value in VALUES:
        answer(lambda **given: function(**{**base, **given}), argument, value)


@pytest.mark.parametrize("argument", ["path", "format"])
def test_writing(argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in VALUES:
        answer(lambda **given: RESULT.save(**{"path": "out.png", **given}), argument, value)
        if argument == "path":
            answer(RESULT.save_labels, argument, value)


@pytest.mark.parametrize(("method", "argument"), cases(OF_MODELS), ids=str)
def test_models(method, argument, model, encoded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = {"segment": {"photo": PHOTO}, "label": {"encoded": encoded}, "encode": {"photos": [PHOTO]}}.get(method, {})
    base = {**photo, **({} if method == "encode" else {"names": ["cat", "wall"]})}
    for value in VALUES:
        answer(lambda **given: getattr(model, method)(**{**base, **given}), argument, value)


NEVER_ALLOWED = (object(), Foreign(), 1j, np.datetime64("2020-01-01"), Ellipsis)
TILES = ("tiles", "window", "context", "threshold", "background", "templates", "polygons", "tolerance", "min_area",
         "bands", "value_range", "batch", "overwrite", "progress")  # fmt: skip


@pytest.mark.parametrize("argument", TILES)
def test_tiles(argument, model, tmp_path, monkeypatch):
    """Wrong values alone: they are refused before the image is read, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    for value in NEVER_ALLOWED:
        message = answer(lambda **given: deop.segment_tiles(model, PHOTO, ["cat"], "out.tif", **given), argument, value)
        assert message
        assert not list(tmp_path.iterdir())


STREAM = ("photos", "names", "masks", "mode", "threshold", "batch", "severance", "anchors", "classifier", "heatmaps")


@pytest.mark.parametrize("argument", STREAM)
def test_streams(argument, model, tmp_path, monkeypatch):
    """Wrong arguments are refused by the call, before a photo is read; what is wrong with a photo is its own error."""
    monkeypatch.chdir(tmp_path)
    base = {"photos": [PHOTO], "names": ["cat", "wall"]}

    def stream(**given):
        results = segment_stream(model, **{**base, **given})  # errors of arguments come from here
        for result in results:
            assert isinstance(result, Failure | Segmentation)
            if isinstance(result, Segmentation):
                check_result(result)

    for value in VALUES:
        answer(stream, argument, value)
    for value in NEVER_ALLOWED:
        assert answer(lambda **given: segment_stream(model, **{**base, **given}), argument, value)


@pytest.mark.parametrize("argument", ["folder", "severance", "precision", "names", "calibrate"])
def test_exporting(argument, tiny_clip, tmp_path, monkeypatch):
    """Refused before anything is traced, and nothing is written."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from deop.export import folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "trace_model", None)
    network = deop.load(str(tiny_clip), engine="torch", device="cpu", proposer="given")
    base = {"folder": "out"} | ({"precision": "int8"} if argument == "calibrate" else {})
    for value in NEVER_ALLOWED:
        assert answer(lambda **given: folder.export_model(network, **{**base, **given}), argument, value)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["photos", "masks", "names", "limit", "note"])
def test_learning(argument, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[:, 5:20, 5:20] = True
    base = {"photos": PHOTO, "masks": mask, "names": ["cup"]}
    for value in VALUES:
        answer(lambda **given: deop.learn(model, **{**base, **given}), argument, value)


@pytest.mark.parametrize("argument", ["name", "engine", "proposer", "proxy", "dtype", "threads"])
def test_loading(argument, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = str(model.config.folder)
    for value in VALUES:
        if argument == "proposer" and isinstance(value, str) and value == "x":
            continue  # the name of a model that the hub may have
        answer(lambda **given: deop.load(**{"name": folder, "engine": "onnx", **given}), argument, value)


@pytest.mark.parametrize(
    ("function", "argument", "value", "message"),
    [
        (Settings, "smallest_region", "x", "smallest_region must be a number, not 'x'"),
        (Settings, "drop_redundant", 1, "drop_redundant must be True or False, not 1"),
        (RESULT.to_coco, "first_id", "7", "first_id must be an integer, not '7'"),
        (RESULT.overlay, "legend", "no", "legend must be True or False, not 'no'"),
        (RESULT.overlay, "font", 9, "font must be a string or None, not 9"),
        (RESULT.save, "path", 7, "path must be a string or a path, not 7"),
        (Thresholds.parse, "value", {"a": "b"}, "threshold of 'a' must be a number"),
    ],
    ids=str,
)
def test_errors_name_the_argument(function, argument, value, message):
    assert message in answer(function, argument, value)


# ---- values that are drawn

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=5,
)  # fmt: skip
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@EXAMPLES
@given(value=NESTED, argument=st.sampled_from([each for each in OF_MODELS["label"] if each != "encoded"]))
def test_labelling_with_any_value(model, encoded, value, argument):
    answer(lambda **given: model.label(encoded, **{"names": ["cat", "wall"], **given}), argument, value)


@EXAMPLES
@given(value=NESTED, case=st.sampled_from([case for case in CONSTRUCTED if case[0] != "load"]))
def test_constructors_with_any_value(value, case):
    function, base, _ = CONSTRUCTORS[case[0]]
    answer(lambda **given: function(**{**base, **given}), case[1], value)


NAME = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
NAMES = st.lists(NAME, min_size=1, max_size=6, unique_by=str.casefold)
SHARES = st.floats(0, 0.99)


@EXAMPLES
@given(names=NAMES, mode=st.sampled_from(["semantic", "panoptic"]), threshold=SHARES, smallest_region=SHARES,
       data=st.data())  # fmt: skip
def test_allowed_values_give_well_formed_results(model, encoded, names, mode, threshold, smallest_region, data):
    try:
        expected = Vocabulary.parse(names).names
    except DeopError:
        return  # two names that are one after normalisation
    things = data.draw(st.lists(st.sampled_from(names), unique=True))
    heated = data.draw(st.sampled_from(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = model.label(
                encoded, names, mode=mode, threshold=threshold, smallest_region=smallest_region, things=things,
                heatmaps=[heated],
            )  # fmt: skip
        except DeopError as error:
            # "other" cannot be a thing, and nano reads Latin letters and digits only.
            if "everything else" in str(error) or "reads nothing of" in str(error):
                return
            raise
    assert result.names == expected
    check_result(result)
