"""Exported folders, run by deop.runtime, against the model in torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import deop
from deop.encoders.clip_text import CLIPText
from deop.errors import MissingDependencyError, OutputError, SettingError
from deop.files import read_json
from deop.severance import Severance
from deop.tensors import TensorFile
from tests.export import small
from tests.tiny import write_tiny_clip

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from deop.export import graphs as graphs_module  # noqa: E402
from deop.export.folder import check_folder, export_model  # noqa: E402
from deop.export.graphs import write_graphs  # noqa: E402
from deop.export.text import clip_parts, trace_text, write_tokenizer  # noqa: E402

NAMES = ["cat", "sofa", "wall", "a dog on a wall"]

# Operators of ONNX that onnxruntime-web's WebAssembly build has: those of its CPU provider. Operators with a state or
# a control flow, and those of other domains, are not expected.
REFUSED = {"Loop", "Scan", "If", "NonZero", "GatherND", "ScatterND", "NonMaxSuppression", "Unique"}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_tiny_clip(folder)
    return folder


@pytest.fixture(scope="module")
def text(clip_folder):
    return CLIPText.from_folder(clip_folder)


def full_model(text, **settings):
    encoder = small.clip(output=text.width)
    return small.model(encoder=encoder, text=text, padding="inside", **settings)


@pytest.fixture(scope="module")
def exported(text, tmp_path_factory):
    """A CLIP with the paper's MaskFormer, and its folder in float32."""
    model = full_model(text)
    model.no_object = torch.nn.Parameter(torch.randn(text.width))
    return model, export_model(model, tmp_path_factory.mktemp("exported") / "model", severance="gate")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(70, 90), (130, 60), (64, 64)])
def test_clip_with_maskformer(exported, size):
    model, folder = exported
    runtime = deop.load(folder, engine="onnx")
    photo = small.photo(*size)
    expected = model.encode([photo], severance="gate")[0]
    actual = runtime.encode([photo])[0]
    logits, scores = (one.class_probabilities(part, NAMES) for one, part in ((model, expected), (runtime, actual)))
    assert actual.regions.shape == expected.regions.shape
    largest = 100 * np.abs(expected.regions.numpy()).max()
    np.testing.assert_allclose(100 * actual.regions, 100 * expected.regions.numpy(), atol=1e-3 * largest)
    np.testing.assert_allclose(scores, logits.numpy(), atol=1e-3)
    labels = model.segment(photo, NAMES, severance="gate").label_map, runtime.segment(photo, NAMES).label_map
    assert (labels[0] == labels[1]).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3])
def test_given_masks(exported, count):
    model, folder = exported
    runtime = deop.load(folder, engine="onnx")
    photo, masks = small.photo(), np.random.default_rng(0).random((count, 70, 90)) > 0.5
    expected, actual = model.encode([photo], [masks], severance="gate")[0], runtime.encode([photo], [masks])[0]
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-5)
    if count:
        expected = model.segment(photo, NAMES, masks=masks, severance="gate").label_map
        actual = runtime.segment(photo, NAMES, masks=masks).label_map
        assert (expected == actual).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("size", [(70, 90), (64, 64)])
def test_patches_that_do_not_divide_the_canvas(text, tmp_path, size):
    """As in CLIP L/14: canvases are multiples of 32, so the last patches reach beyond them."""
    model = full_model(text)
    model.encoder = small.clip(output=text.width, patch=14)
    model.set_proposer(None)
    runtime = deop.load(export_model(model, tmp_path / "model"), engine="onnx")
    photo, masks = small.photo(*size), np.random.default_rng(0).random((3, *size)) > 0.5
    expected, actual = model.encode([photo], [masks])[0], runtime.encode([photo], [masks])[0]
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-5)


@pytest.mark.slow
def test_graphs_are_standard_and_share_their_weights(exported):
    model, folder = exported
    config = read_json(folder / "config.json")
    assert config["settings"]["severance"]["kind"] == "gate"
    assert set(config["onnx"]["files"]) == {file.name for file in folder.iterdir()} - {"config.json", "README.md"}
    for file in folder.glob("*.onnx"):
        graph = onnx.load(file, load_external_data=False)
        assert [one.version for one in graph.opset_import if one.domain == ""] == [20]
        assert {node.domain for node in graph.graph.node} <= {""}
        assert not {node.op_type for node in graph.graph.node} & REFUSED
        assert file.stat().st_size < 500_000
        assert "/" not in " ".join(node.doc_string for node in graph.graph.node)
        onnx.checker.check_model(str(file))
    weights = sum(tensor.length for tensor in TensorFile(folder / "weights.safetensors").tensors.values())
    parameters = {id(one): one.numel() * 4 for part in (model.encoder, model.proposer) for one in part.parameters()}
    assert weights < 1.2 * sum(parameters.values()) + 50_000


@pytest.mark.slow
def test_float16_and_a_table_of_names(text, tmp_path):
    model = full_model(text)
    model.set_proposer(None)
    folder = export_model(model, tmp_path / "model", precision="float16", names=["cat", "sofa|couch", "wall"])
    runtime = deop.load(folder, engine="onnx")
    dtypes = {tensor.dtype for tensor in TensorFile(folder / "weights.safetensors").tensors.values()}
    assert dtypes == {"F16"}
    photo, masks = small.photo(), np.random.default_rng(0).random((3, 70, 90)) > 0.5
    names = ["wall", "couch|sofa"]
    expected, actual = (one.encode([photo], [masks])[0] for one in (model, runtime))
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=5e-3)
    expected, actual = (one.embed(one.vocabulary(names)).rows for one in (model, runtime))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert not (folder / "text.onnx").exists()
    export_model(model, folder)
    assert (folder / "text.onnx").exists()
    assert not (folder / "names.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [None, (3, 2)])
def test_text_tower(clip_folder, tmp_path, prompt):
    text = CLIPText.from_folder(clip_folder)
    if prompt is not None:
        torch.manual_seed(0)
        text.add_prompt(*prompt)
        text.prompt.pad.normal_()
    write_graphs({"text": trace_text(text)}, tmp_path, weights="text.safetensors")
    write_tokenizer(text, tmp_path / "tokenizer.json")
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    texts = ["a cat", "", "sofa", "a dog on the wall, twice"]
    rows = [one.ids for one in Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(texts)]
    session = InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    for padding in (0, rows[0][-1]):  # as OpenAI's code and as transformers
        tokens = np.array([row + [padding] * (max(map(len, rows)) - len(row)) for row in rows])
        np.testing.assert_allclose(
            session.run(None, {"tokens": tokens})[0], text.embed(texts).detach().numpy(), atol=1e-5
        )
    parts = clip_parts(text, "text.onnx", "float32")
    assert parts.context_length == 77 - (0 if prompt is None else 6)
    assert parts.uses_templates == (prompt is None)


def tiny_graph(values, name="g"):
    nodes = [helper.make_node("Identity", [key], [f"{key} out"]) for key in values]
    outputs = [helper.make_tensor_value_info(f"{key} out", TensorProto.FLOAT, one.shape) for key, one in values.items()]
    weights = [numpy_helper.from_array(one, key) for key, one in values.items()]
    return helper.make_model(
        helper.make_graph(nodes, name, [], outputs, weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


@pytest.mark.parametrize("half", [False, True])
def test_equal_weights_are_written_once(tmp_path, half):
    from onnxruntime import InferenceSession

    random = np.random.default_rng(0)
    shared, own = (random.standard_normal((20, 30), np.float32) for _ in range(2))
    large = np.full((16, 20), 1e6, np.float32)
    values = {"first": {"a": shared, "small": np.ones(3, np.float32)}, "second": {"b": shared, "a": own, "c": large}}
    written = write_graphs({name: tiny_graph(one) for name, one in values.items()}, tmp_path, half=half)
    assert written == ["first.onnx", "second.onnx", "weights.safetensors"]
    tensors = TensorFile(tmp_path / "weights.safetensors").tensors
    assert {one.shape for one in tensors.values()} == {(20, 30), (16, 20)}
    assert len(tensors) == 3
    for name, expected in values.items():
        session = InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for one, actual in zip(expected.values(), session.run(None, {}), strict=True):
            limit = 65504 if half else np.inf
            np.testing.assert_allclose(actual, one.clip(-limit, limit), rtol=1e-3 if half else 0)


def test_wrong_options_are_refused_before_anything_slow(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs_module, "trace", lambda *_: pytest.fail("traced"))
    model = small.model()
    with pytest.raises(SettingError, match="precision 'int4'"):
        export_model(model, tmp_path / "model", precision="int4")
    with pytest.raises(SettingError, match="photos"):
        export_model(model, tmp_path / "model", precision="int8")
    with pytest.raises(SettingError, match="severance"):
        export_model(model, tmp_path / "model", severance="wall")
    with pytest.raises(SettingError, match="float32"):
        export_model(small.model().half(), tmp_path / "model")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="files that are not"):
        export_model(model, tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        check_folder(tmp_path / "notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def crosswise(tokens):
    return tokens.values


@pytest.mark.parametrize(
    ("settings", "severance", "text"),
    [
        ({"windows": (64, 32)}, None, r"windows \(64, 32\): export the model with windows=None"),
        ({}, "proxyclip", "severance 'similar' with a second network"),
        ({}, crosswise, "severance 'crosswise', which is a function"),
    ],
)
def test_what_graphs_do_not_compute_is_refused_before_anything_slow(monkeypatch, tmp_path, settings, severance, text):
    monkeypatch.setattr(graphs_module, "trace", lambda *_: pytest.fail("traced"))
    severed = Severance(severance) if callable(severance) else severance
    with pytest.raises(SettingError, match=text):
        export_model(small.model(**settings), tmp_path / "model", severance=severed)


@pytest.mark.parametrize("anchors", ["tokens", "patch"])
def test_anchors_that_graphs_do_not_compute_are_refused(monkeypatch, tmp_path, anchors):
    monkeypatch.setattr(graphs_module, "trace", lambda *_: pytest.fail("traced"))
    model = small.model()
    model.settings = replace(model.settings, anchors=anchors)
    with pytest.raises(SettingError, match=f"anchors=\"{anchors}\": export the model with anchors='pool'"):
        export_model(model, tmp_path / "model")


def test_missing_library_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"deop\[export\]"):
        export_model(small.model(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_nothing_remains_of_a_failed_export(monkeypatch, tmp_path):
    """Another text encoder than CLIP's and nano's needs names; that is found after the graphs were traced."""
    values = {"encode": tiny_graph({"a": np.ones((20, 30), np.float32)})}
    monkeypatch.setattr("deop.export.folder.trace_model", lambda *_, **__: values)
    with pytest.raises(SettingError, match="NoText"):
        export_model(small.model(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
