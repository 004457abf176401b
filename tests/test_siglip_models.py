"""SigLIP as a whole model: from a folder to labels, saved and loaded, scores, export."""

import numpy as np
import pytest
import torch

import deop
from deop.errors import SettingError
from deop.labelling.classification import probabilities as numpy_probabilities
from deop.regions.classification import probabilities
from deop.settings import Settings
from tests.tiny import write_tiny_siglip

NAMES = ["cat", "dog", "sofa|couch"]


@pytest.fixture(scope="module", params=[False, True], ids=["fixed", "NaFlex"])
def folder(request, tmp_path_factory):
    return write_tiny_siglip(tmp_path_factory.mktemp("siglip"), flexible=request.param)


@pytest.fixture
def model(folder):
    loaded = deop.load(folder, device="cpu")
    loaded.cache = None
    return loaded


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def masks():
    masks = np.zeros((3, 40, 60), bool)
    masks[0, :, :30] = masks[1, :20, 30:] = True
    masks[2, 21:23, 40:42] = True  # smaller than a patch
    return masks


def test_defaults_and_scores(model, photo, masks):
    """Scores are the sigmoid of transformers' logits for the embedding of the mask."""
    assert model.settings.anchors == "attention-pool"
    assert model.settings.severance.kind == "none"
    assert model.settings.temperature == pytest.approx(np.exp(4.7), rel=1e-5)
    assert model.settings.logit_bias == -16.5
    encoded = model.encode([photo], [masks])[0]
    assert encoded.settings["anchors"] == "attention-pool"
    scores = model.class_probabilities(encoded, NAMES)
    rows, owner = model.embed(model.vocabulary(NAMES)).rows, [0, 1, 2, 2]
    cosines = encoded.regions.numpy() @ rows.T
    expected = 1 / (1 + np.exp(16.5 - np.exp(4.7) * cosines))
    for name in range(3):
        best = expected[:, [index for index, one in enumerate(owner) if one == name]].max(1)
        np.testing.assert_allclose(scores[:, name], best, rtol=1e-3)
    assert (scores[:, 3] == 0).all()
    result = model.segment(photo, NAMES, masks=masks)
    assert len(np.unique(result.label_map[masks[0]])) == 1


@torch.no_grad()
def test_a_mask_of_everything_scores_as_in_transformers(model, folder, photo):
    from transformers import AutoModel, AutoTokenizer

    encoded = model.encode([photo], [np.ones((1, 40, 60), bool)])[0]
    theirs, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(["a cat"], padding="max_length", max_length=40, return_tensors="pt")["input_ids"]
    text = torch.nn.functional.normalize(theirs.get_text_features(ids).pooler_output, dim=-1)
    row = torch.nn.functional.normalize(model.text.embed(["a cat"]), dim=-1)
    torch.testing.assert_close(row, text)
    logits = encoded.regions @ text.T * theirs.logit_scale.exp() + theirs.logit_bias
    ours = probabilities(model.settings.temperature * encoded.regions @ row.T, model.settings.logit_bias)
    torch.testing.assert_close(ours, logits.sigmoid())


@pytest.mark.parametrize("anchors", ["attention-pool", "pool", "patch"])
@pytest.mark.parametrize("severance", [None, "naclip", "region:similarity=k:residual=0:mlp=no", "gate"])
def test_anchors_and_severances(model, photo, masks, anchors, severance):
    encoded = model.encode([photo], [masks], anchors=anchors, severance=severance)[0]
    assert encoded.regions.shape == (3, 64)
    torch.testing.assert_close(encoded.regions.norm(dim=1), torch.ones(3))
    assert encoded.heatmaps.isfinite().all()
    assert model.label(encoded, NAMES).label_map.shape == (40, 60)


def test_no_masks_and_several_photos(model, photo, masks):
    none, some = model.encode([photo, photo], [np.zeros((0, 40, 60), bool), masks])
    assert none.regions.shape == (0, 64)
    torch.testing.assert_close(some.regions, model.encode([photo], [masks])[0].regions)
    assert (model.label(none, NAMES).label_map == -1).all()


def test_two_streams(model, photo, masks):
    result = model.segment(photo, NAMES, masks=masks, classifier="two-stream")
    assert result.label_map.shape == (40, 60)


def test_saved_and_loaded(model, photo, masks, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = deop.load(tmp_path, device="cpu")
    loaded.cache = None
    assert loaded.settings == model.settings
    assert loaded.text.identity == model.text.identity
    first, second = (one.class_probabilities(one.encode([photo], [masks])[0], NAMES) for one in (model, loaded))
    torch.testing.assert_close(first, second)


def test_int8(folder, photo, masks):
    model = deop.load(folder, device="cpu", dtype="int8")
    model.cache = None
    regions = model.encode([photo], [masks], severance="naclip")[0].regions
    assert regions.isfinite().all()


def test_refusals(model, photo, masks, tiny_clip):
    with pytest.raises(SettingError, match=r'SiglipVision\) does not support anchors="tokens"'):
        model.encode([photo], [masks], anchors="tokens")
    with pytest.raises(SettingError, match=r'CLIPVision\) does not support anchors="attention-pool"'):
        deop.load(tiny_clip, device="cpu").encode([photo], [masks], anchors="attention-pool")


@pytest.mark.slow
def test_exported(model, photo, masks, tmp_path):
    """Regions, texts of any length and case, and scores are those of torch."""
    pytest.importorskip("onnxscript")
    from deop.export import export_model

    runtime = deop.load(export_model(model, tmp_path / "exported"), engine="onnx")
    runtime.cache = None
    texts = ["cat", "A Dog, and a cat", "", "dog" * 60]
    np.testing.assert_allclose(runtime.text.embed(texts), model.text.embed(texts).detach().numpy(), atol=1e-4)
    ours, theirs = model.encode([photo], [masks])[0], runtime.encode([photo], [masks])[0]
    np.testing.assert_allclose(theirs.regions, ours.regions.numpy(), atol=1e-4)
    scores = model.class_probabilities(ours, NAMES).numpy()
    np.testing.assert_allclose(runtime.class_probabilities(theirs, NAMES), scores, rtol=1e-3)


def test_a_tokenizer_of_sentencepiece_is_not_exported(model, tmp_path):
    from deop.export.text import write_tokenizer

    class Slow:
        pass

    model.text.tokenizer = Slow()
    with pytest.raises(SettingError, match="needs SentencePiece"):
        write_tokenizer(model.text, tmp_path / "tokenizer.json")


def test_the_graph_of_classification_has_the_sigmoid():
    pytest.importorskip("onnx")
    import onnxruntime

    from deop.export.programs import classify_graph

    session = onnxruntime.InferenceSession(classify_graph(-16.5).SerializeToString())
    generator = np.random.default_rng(0)
    regions, rows = generator.normal(size=(4, 8)), generator.normal(size=(3, 8))
    values = {"regions": regions, "rows": rows, "offset": np.zeros(3), "temperature": np.array(10.0)}
    values = {name: value.astype(np.float32) for name, value in values.items()}
    values |= {"owner": np.array([0, 1, 1]), "names": np.array(2)}
    logits = 10 * regions @ rows.T
    best = np.stack([logits[:, 0], logits[:, 1:].max(1)], 1)
    scores = session.run(None, values)[0]
    np.testing.assert_allclose(scores[:, :2], 1 / (1 + np.exp(16.5 - best)), rtol=1e-3)
    assert (scores[:, 2] == 0).all()


def test_sigmoid_scores():
    logits = np.array([[3.0, -2.0, -np.inf]], np.float32)
    expected = 1 / (1 + np.exp(-(logits.astype(np.float64) + 1)))
    np.testing.assert_allclose(numpy_probabilities(logits, 1.0), expected, rtol=1e-6)
    np.testing.assert_allclose(probabilities(torch.from_numpy(logits), 1.0), expected, rtol=1e-6)
    with pytest.raises(SettingError, match="logit_bias"):
        Settings(logit_bias=float("inf"))
