"""Classification in numpy equals that in torch, which is checked against the original and by hand."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.labelling import classification
from deop.regions import classification as reference
from deop.text.embedded_classes import Classes
from tests.conftest import assert_parity


def unit_rows(rng, count, width=8):
    rows = rng.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=100, deadline=None)
@given(
    names=st.integers(1, 6),
    synonyms=st.integers(0, 4),
    background=st.integers(0, 3),
    regions=st.integers(0, 5),
    learned=st.booleans(),
    offset=st.booleans(),
    rest=st.none() | st.integers(0, 5),
    without_rows=st.sets(st.integers(0, 5)),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 1000),
)
def test_equals_torch(names, synonyms, background, regions, learned, offset, rest, without_rows, order, seed):
    """In any order of the rows: those of rivals may belong to a name in the middle; some names may have none."""
    rng = np.random.default_rng(seed)
    owners = [*range(names), *rng.integers(0, names, synonyms).tolist(), *[names] * background]
    owners = [name for name in owners if name not in without_rows] or [names]
    order.shuffle(owners)
    owner = np.array(owners, np.int64)
    offsets = -3 * rng.integers(0, 2, len(owner)).astype(np.float32) if offset else None
    everything_else = None if rest is None or rest >= names else rest
    rows = unit_rows(rng, len(owner))
    classes = Classes(rows, owner, tuple(map(str, range(names))), offsets, everything_else)
    photo = unit_rows(rng, regions)
    no_object = rng.normal(size=8).astype(np.float32) if learned else None

    expected = reference.classify(
        torch.from_numpy(photo), classes, None if no_object is None else torch.from_numpy(no_object), 10.0
    )
    logits = classification.classify(photo, classes, no_object, 10.0)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    scores = classification.probabilities(logits)
    np.testing.assert_allclose(scores, reference.probabilities(expected).numpy(), atol=1e-5)
    assert scores.dtype == np.float32


def test_parity(parity):
    file = parity("classify")
    rows = file["text_embeddings"].numpy()
    classes = Classes(rows, np.arange(len(rows)), tuple(map(str, range(len(rows)))))
    no_object = file["non_object_embedding"][0].numpy()
    for index, regions in enumerate(file["region_embeddings"]):
        logits = classification.classify(regions.numpy(), classes, no_object, file.info["temperature"])
        assert_parity(torch.from_numpy(logits), file["logits"][index])
        scores = torch.from_numpy(classification.probabilities(logits)[:, :-1])
        assert_parity(scores, file["class_probabilities"][index])


def test_names_without_rows_get_nothing():
    """A synonym that is replaced by everything else has no row; its name scores 0."""
    classes = Classes(np.eye(3, dtype=np.float32)[:1], np.array([1]), ("a", "b"))
    logits = classification.classify(np.eye(3, dtype=np.float32)[:1], classes, None, 100.0)
    assert logits.tolist() == [[-np.inf, 100.0, -np.inf]]
    assert classification.probabilities(logits).tolist() == [[0, 1, 0]]


def test_no_rows_at_all():
    classes = Classes(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), ("background",), everything_else=0)
    logits = classification.classify(np.eye(3, dtype=np.float32), classes, np.array([2.0, 0, 0]), 10.0)
    assert logits[:, 0].tolist() == [10, 0, 0]


def test_large_logits_do_not_overflow():
    scores = classification.probabilities(np.array([[1000, 999, -np.inf]], np.float32))
    np.testing.assert_allclose(scores, [[0.7310586, 0.2689414, 0]], rtol=1e-6)


def test_half_precision_regions_are_computed_in_float32():
    rows = np.array([[1.0, 0.06, 0], [1.0, 0.05, 0], [1.0, 0.07, 0]], np.float32)
    classes = Classes(rows, np.arange(3), ("a", "b", "c"))
    logits = classification.classify(np.array([[1, 0.5, 0]], np.float16), classes)
    np.testing.assert_allclose(logits[0, :3], [103, 102.5, 103.5], rtol=1e-5)
