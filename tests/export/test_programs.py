"""The graphs for programs in other languages, in ONNX Runtime, against deop.labelling."""

import numpy as np
import pytest

from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.classification import classify, probabilities
from deop.labelling.masks import PhotoMasks
from deop.text.embedded_classes import Classes

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from deop.export.programs import classify_graph, label_graph  # noqa: E402


def session_of(graph):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def classifier():
    return session_of(classify_graph())


@pytest.fixture(scope="module")
def labeller():
    return session_of(label_graph())


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("with_rest", [False, True])
def test_probabilities(classifier, count, with_rest):
    random = np.random.default_rng(count)
    regions = unit(random.standard_normal((count, 16), np.float32))
    rows = unit(random.standard_normal((9, 16), np.float32))
    owner = np.array([0, 2, 2, 1, 0, 3, 4, 4, 4] if with_rest else [0, 2, 2, 1, 0, 3, 1, 2, 3])  # 4 names
    offset = random.standard_normal(9).astype(np.float32)
    expected = probabilities(classify(regions, Classes(rows, owner, tuple("abcd"), offset), temperature=30.0))
    feed = {"regions": regions, "rows": rows, "owner": owner, "offset": offset}
    (actual,) = classifier.run(None, {**feed, "temperature": np.array(30, np.float32), "names": np.array(4)})
    assert actual.shape == (count, 5)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    if not with_rest:
        assert not actual[:, 4].any()


def test_no_object_vector_is_one_more_row(classifier):
    random = np.random.default_rng(1)
    regions, rows = (unit(random.standard_normal((n, 8), np.float32)) for n in (5, 3))
    vector = 3 * random.standard_normal(8).astype(np.float32)
    classes = Classes(rows, np.arange(3), tuple("abc"))
    feed = {
        "regions": regions,
        "rows": np.concatenate([rows, unit(vector)[None]]),
        "owner": np.array([0, 1, 2, 3]),
        "offset": np.zeros(4, np.float32),
        "temperature": np.array(100, np.float32),
        "names": np.array(3),
    }
    np.testing.assert_allclose(
        classifier.run(None, feed)[0], probabilities(classify(regions, classes, vector)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("photo", "resized", "padded", "cells"),
    [
        ((60, 90), (40, 60), (64, 64), (16, 16)),
        ((40, 60), (40, 60), (64, 64), (16, 16)),
        ((33, 20), (61, 37), (64, 64), (13, 17)),
        ((1, 1), (32, 32), (32, 32), (8, 8)),
        ((50, 70), (50, 70), (50, 70), (50, 70)),
    ],
)
@pytest.mark.parametrize("names", [1, 3, 40])
@pytest.mark.parametrize("background", [False, True])
def test_label_map_in_windows(labeller, photo, resized, padded, cells, names, background):
    random = np.random.default_rng(names)
    masks = 4 * random.standard_normal((6, *cells), np.float32)
    scores = unit(np.square(random.random((6, names + 1), np.float32)))
    scores /= scores.sum(1, keepdims=True)
    limits = random.choice([0.0, 0.3], names).astype(np.float32)
    expected = semantic(
        scores, PhotoMasks(masks), Canvas(photo, resized, padded), threshold=limits, claim=0.8, none_competes=background
    )
    labels, values = np.full(photo, 99, np.int32), np.zeros(photo, np.float32)
    for top in range(0, photo[0], 32):
        for left in range(0, photo[1], 48):
            window = np.array([top, left, min(top + 32, photo[0]), min(left + 48, photo[1])])
            feed = {
                "probabilities": scores, "masks": masks, "window": window, "limits": limits,
                "claim": np.array(0.8, np.float32),
                "photo": np.array(photo), "resized": np.array(resized), "padded": np.array(padded),
                "background": np.array(background), "everything_else": np.array(-1),
            }  # fmt: skip
            part = labeller.run(None, feed)
            labels[top : window[2], left : window[3]], values[top : window[2], left : window[3]] = part
    assert labels.min() >= -1
    assert labels.max() < names
    np.testing.assert_allclose(values, expected.confidence, atol=1e-5)
    assert (labels == expected.labels).mean() > 0.999


def test_everything_else_gets_the_pixels_of_no_name(labeller):
    feed = {
        "probabilities": np.array([[0.2, 0.3, 0.5]], np.float32),
        "masks": np.array([[[9.0, -9.0]]], np.float32),
        "limits": np.array([0.0, 0.25], np.float32),
        "claim": np.array(0.5, np.float32),
        "background": np.array(False),
        "everything_else": np.array(0),
        "window": np.array([0, 0, 1, 2]),
        **{key: np.array([1, 2]) for key in ("photo", "resized", "padded")},
    }
    assert labeller.run(None, feed)[0].tolist() == [[1, 0]]
    assert labeller.run(None, {**feed, "background": np.array(True)})[0].tolist() == [[-1, 0]]


def test_operators_are_standard():
    for graph in (classify_graph(), label_graph()):
        assert {node.domain for node in graph.graph.node} == {""}
        assert len(graph.SerializeToString()) < 20_000
