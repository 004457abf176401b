"""Sessions of exported networks, against torch, and what they refuse."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from deop.errors import CheckpointError, SettingError
from deop.runtime.session import EncodeSession
from deop.zoo import NANO

pytest.importorskip("onnxruntime")


def hashes_of(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("encode.onnx", "model.safetensors")
    }


@pytest.fixture(scope="module")
def session():
    return EncodeSession(NANO, hashes_of(NANO), "encode.onnx", threads=1)


@pytest.fixture
def folder(tmp_path):
    for name in ("encode.onnx", "model.safetensors"):
        shutil.copy(NANO / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("size", [(96, 128), (90, 100), (32, 64), (20, 31), (128, 70)])
def test_equals_torch(session, size):
    import torch

    from deop.images.canvas import Canvas
    from deop.regions.encoding import encode_one_pass
    from deop.zoo import load

    model = load("nano", engine="torch", device="cpu")
    padded = (size[0] + -size[0] % 32, size[1] + -size[1] % 32)
    pixels = np.zeros((1, 3, *(max(64, side) for side in padded)), np.float32)
    # Without noise, cells of one colour between two superpixels would depend on rounding.
    random = np.random.default_rng(0)
    blocks = random.standard_normal((3, 8, 8)).repeat(16, 1).repeat(16, 2) + 0.2 * random.standard_normal((3, 128, 128))
    pixels[0, :, : size[0], : size[1]] = blocks[:, : size[0], : size[1]]
    padded = (pixels.shape[2], pixels.shape[3])
    with torch.inference_mode():
        tensor = torch.from_numpy(pixels)
        proposals = model.proposer(tensor)
        expected = encode_one_pass(
            model.encoder,
            None,
            model.settings,
            tensor,
            [Canvas(size, size, padded)],
            proposals,
            model.settings.severance,
        )[0]
    actual = session.run(pixels, size)
    assert actual.masks.shape == expected.proposals.logits.shape
    # Refinement amplifies differences of rounding in cells between two masks.
    difference = 1 / (1 + np.exp(-actual.masks)) - expected.proposals.logits.sigmoid().numpy()
    assert np.abs(difference).max() < 5e-3
    assert (np.abs(difference) > 1e-3).mean() < 1e-3
    np.testing.assert_allclose(actual.regions, expected.regions.numpy(), atol=1e-4)
    assert session.width == actual.regions.shape[1]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (3, 64, 64), (1, 4, 64, 64)])
def test_other_pixels_are_refused(session, shape):
    with pytest.raises(SettingError, match="pixels of shape"):
        session.run(np.zeros(shape, np.float32), (64, 64))


@pytest.mark.parametrize("name", ["encode.onnx", "model.safetensors"])
def test_missing_empty_and_changed_files_are_named(folder, name):
    hashes, content = hashes_of(folder), (folder / name).read_bytes()
    for damaged, message in ((content[:-1] + b"!", "is damaged or belongs"), (content[:1000], "is damaged or belongs")):
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name} {message}"):
            EncodeSession(folder, hashes, "encode.onnx")
    (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{name} is empty"):
        EncodeSession(folder, hashes, "encode.onnx")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        EncodeSession(folder, hashes, "encode.onnx")


def test_files_may_be_links(folder, tmp_path_factory):
    """As in the hub's cache."""
    links = tmp_path_factory.mktemp("links")
    for file in folder.iterdir():
        (links / file.name).symlink_to(file)
    assert EncodeSession(links, hashes_of(folder), "encode.onnx", threads=1).width == 257


def test_file_that_the_config_does_not_list_is_refused(folder):
    hashes = hashes_of(folder)
    del hashes["model.safetensors"]
    with pytest.raises(CheckpointError, match="not listed"):
        EncodeSession(folder, hashes, "encode.onnx")


def test_weights_of_another_model_are_refused(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="belongs to other weights"):
        EncodeSession(folder, hashes_of(folder), "encode.onnx")


@pytest.mark.parametrize("location", ["../model.safetensors", "/etc/hostname", "a/b", "..", "c:x", "a\\b"])
def test_files_outside_the_folder_are_refused(folder, location):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "encode.onnx", load_external_data=False)
    tensor = next(one for one in graph.graph.initializer if one.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (folder / "encode.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(CheckpointError, match="same folder"):
        EncodeSession(folder, hashes_of(folder) | {location: "0" * 64}, "encode.onnx")


def test_sizes_that_are_no_text_are_refused(folder):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "encode.onnx", load_external_data=False)
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "ZZZZ"
    content = graph.SerializeToString()
    assert content.count(b"ZZZZ") == 1
    (folder / "encode.onnx").write_bytes(content.replace(b"ZZZZ", b"\xa1ZZZ"))
    with pytest.raises(CheckpointError, match="not UTF-8 text"):
        EncodeSession(folder, hashes_of(folder), "encode.onnx", threads=1)


def test_graphs_of_other_models_are_refused(folder):
    onnx = pytest.importorskip("onnx")
    original = (folder / "encode.onnx").read_bytes()

    def refused(change, message):
        graph = onnx.load_from_string(original)
        change(graph)
        (folder / "encode.onnx").write_bytes(graph.SerializeToString())
        with pytest.raises(CheckpointError, match=message):
            EncodeSession(folder, hashes_of(folder), "encode.onnx")

    def no_metadata(graph):
        del graph.metadata_props[:]

    def another_name(graph):
        for node in graph.graph.node:
            node.output[:] = ["boxes" if name == "masks" else name for name in node.output]
            node.input[:] = ["boxes" if name == "masks" else name for name in node.input]
        next(output for output in graph.graph.output if output.name == "masks").name = "boxes"

    def one_more_output(graph):
        graph.graph.output.append(onnx.helper.make_tensor_value_info("extra", 1, None))
        graph.graph.node.append(onnx.helper.make_node("Identity", ["masks"], ["extra"]))

    def unknown_operator(graph):
        graph.graph.node[0].op_type = "Unheard"

    refused(no_metadata, "not written by deop")
    refused(another_name, "has no output 'masks'")
    refused(one_more_output, "'extra' too")
    refused(unknown_operator, "cannot load")
    (folder / "encode.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match="is damaged"):
        EncodeSession(folder, hashes_of(folder), "encode.onnx")
