"""Classification: parity with the original (also of assembly), and by hand."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.images.canvas import Canvas
from deop.labelling.assembly import semantic
from deop.labelling.masks import PhotoMasks
from deop.proposals.types import Proposals
from deop.regions.classification import ClassTensors, classify, probabilities
from deop.regions.windows import mask_blocks
from tests.conftest import assert_parity


def classes_of(rows, owner=None):
    count = len(rows) if owner is None else int(owner.max()) + 1
    return ClassTensors(rows, torch.arange(count) if owner is None else owner, tuple(f"name {k}" for k in range(count)))


def test_parity_classification_and_semantic_map(parity):
    file = parity("classify")
    no_object = torch.nn.functional.normalize(file["non_object_embedding"], dim=-1)
    assert_parity(torch.cat([file["text_embeddings"], no_object]), file["text_with_no_object"])
    logits = classify(
        file["region_embeddings"], classes_of(file["text_embeddings"]), file["non_object_embedding"][0],
        file.info["temperature"],
    )  # fmt: skip
    assert_parity(logits, file["logits"])
    scores = probabilities(logits)
    assert_parity(scores[..., :-1], file["class_probabilities"])
    padded = tuple(4 * side for side in file["mask_logits"].shape[-2:])
    for index in range(len(logits)):
        sizes = [tuple(file[key][index].tolist()) for key in ("output_sizes", "image_sizes")]
        canvas = Canvas(sizes[0], sizes[1], padded)
        proposals = Proposals(file["mask_logits"][index])
        votes = file["class_probabilities"][index].T
        at_input = Canvas(sizes[1], sizes[1], padded)
        for place, key in ((at_input, "semantic_at_input"), (canvas, "semantic_final")):
            masks = torch.cat([block for *_, block in mask_blocks(proposals, place)], 1)
            if f"{key}_{index}" in file:  # a cut file has one image
                file.check(f"{key}_{index}", torch.einsum("kn,nhw->khw", votes, masks))
        label_map = torch.from_numpy(
            semantic(scores[index].numpy(), PhotoMasks(proposals.logits.numpy()), canvas).labels
        )
        if f"labels_{index}" in file:
            stride = file.info.get("stride", {}).get(f"labels_{index}", 1)
            wrong = label_map[::stride, ::stride] != file[f"labels_{index}"]
            assert wrong.float().mean() < 1e-3  # rounding may decide ties differently


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2), st.booleans(), st.integers(0, 1000))
def test_by_hand(names, background, learned, seed):
    torch.manual_seed(seed)
    owner = torch.cat([torch.arange(names), torch.randint(names, (3,)), torch.full((background,), names)])
    rows = torch.nn.functional.normalize(torch.randn(len(owner), 8), dim=1)
    classes = ClassTensors(rows, owner, tuple(map(str, range(names))))
    regions = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    no_object = torch.randn(8) if learned else None
    logits = classify(regions, classes, no_object, 100.0)
    assert logits.shape == (4, names + 1)
    for n in range(4):
        for k in range(names + 1):
            scores = [100 * float(regions[n] @ row) for row, name in zip(rows, owner, strict=True) if name == k]
            if k == names and learned:
                scores.append(100 * float(regions[n] @ no_object / no_object.norm()))
            expected = max(scores, default=float("-inf"))
            torch.testing.assert_close(float(logits[n, k]), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(probabilities(logits).sum(-1), torch.ones(4))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_order_of_names_permutes_scores(order, seed):
    torch.manual_seed(seed)
    rows, regions = torch.randn(5, 8), torch.randn(4, 8)
    expected = classify(regions, classes_of(rows))
    logits = classify(regions, classes_of(rows[list(order)]))
    torch.testing.assert_close(logits[:, :-1], expected[:, list(order)])


def test_half_precision_regions_distinguish_similar_names():
    """At a logit of 99, bfloat16 has steps of 1/2: these names would tie, and the first one would win."""
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.06, 0], [1.0, 0.05, 0], [1.0, 0.07, 0]]), dim=1)
    region = torch.tensor([[1.0, 0, 0]])
    expected = classify(region, classes_of(rows))
    logits = classify(region.bfloat16(), classes_of(rows))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)
    assert logits[0, :-1].argmax() == 1


def test_no_regions():
    assert classify(torch.zeros(0, 8), classes_of(torch.randn(3, 8))).shape == (0, 4)
