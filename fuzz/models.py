"""Weights, banks of examples, and ONNX graphs of exported folders."""

import atexit
import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save

from deop.bank import storage
from deop.bank.bank import Bank
from deop.bank.space import Space
from deop.bank.storage import read_bank
from deop.errors import CheckpointError
from deop.networks.loading import read_weights
from deop.runtime.session import RegionsSession
from deop.runtime.text import NameTable
from deop.tensors import TensorFile
from deop.weights.format import load_model_folder
from fuzz.target import Target

_digest = storage._digest
EXAMPLES = 1000
"""Examples of the largest bank."""


def read_tensors(data: bytes, folder: Path) -> None:
    """A safetensors file, by both readers. Where both read it, the tensors are the same; ours is the stricter one."""
    path = folder / "model.safetensors"
    path.write_bytes(data)
    file = TensorFile(path)
    state = read_weights(path)
    for key, tensor in file.tensors.items():
        assert key.endswith("::scale") or f"{key}::scale" in file.tensors or key in state, key
        if key in state and f"{key}::scale" not in file.tensors:
            assert tuple(state[key].shape) == tensor.shape, key
            try:
                values = file[key]
            except CheckpointError:
                continue  # a type that numpy does not have
            assert values.tobytes() == state[key].numpy().tobytes(), key


def files_of_tensors() -> Iterator[bytes]:
    """Safetensors files: several types, none, a scalar, packed weights, and headers with mistakes."""
    yield save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int8), "c": torch.tensor(1.0)})
    yield save({"a": torch.zeros(0, 3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"format": "pt"})
    yield save({"a": torch.ones(2, 4, dtype=torch.int8), "a::scale": torch.ones(2)})
    yield save({})
    for header in ('{"a": 1}', "[]", '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', "[" * 5000):
        yield len(header).to_bytes(8, "little") + header.encode() + bytes(4)


@cache
def tiny_model() -> Path:
    """A model in deop's own format, with random weights of a few thousand numbers."""
    from tests.tiny import write_tiny_clip

    from deop.encoders.clip import CLIPVision
    from deop.encoders.clip_text import CLIPText
    from deop.model import DeOP

    root = Path(mkdtemp(prefix="deop-fuzz-model-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    clip = write_tiny_clip(root / "clip", layers=1)
    return DeOP(CLIPVision.from_folder(clip), CLIPText.from_folder(clip)).save_pretrained(root / "own")


def read_own_config(data: bytes, folder: Path) -> None:
    """config.json of a model in deop's own format, with the weights and tokenizer of another."""
    if not (folder / "own").exists():
        shutil.copytree(tiny_model(), folder / "own")
    (folder / "own" / "config.json").write_bytes(data)
    load_model_folder(folder / "own")


def own_configs() -> Iterator[bytes]:
    """The config of a small model, whole and with one value changed."""
    config = json.loads((tiny_model() / "config.json").read_text(encoding="utf-8"))
    yield json.dumps(config).encode()
    for value in (None, -1, 10**9, [[1]]):
        for key in config:
            yield json.dumps({**config, key: value}).encode()
        for part in ("encoder", "text"):
            for key in config[part]["config"]:
                changed = {**config[part], "config": {**config[part]["config"], key: value}}
                yield json.dumps({**config, part: changed}).encode()


def read_table(data: bytes, folder: Path) -> None:
    """The table of names of an exported model."""
    path = folder / "names.safetensors"
    path.write_bytes(data)
    table = NameTable(path)
    if table.index and table.rows.dtype.kind == "f":
        assert table.embed(list(table.index)[:1]).shape == (1, table.width)


def tables() -> Iterator[bytes]:
    """Tables of names, good and bad."""
    for texts in ('["cat", "dog"]', "7", "[" * 5000, '[["cat"], null]', '{"a": 1}', '["cat"]'):
        yield save({"rows": torch.ones(2, 3)}, {"texts": texts})
    yield save({"rows": torch.ones(2)}, {"texts": '["cat", "dog"]'})


class _EqualToAll(str):
    """A digest that no other differs from."""

    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


def open_bank(data: bytes, folder: Path) -> None:
    """A bank of examples. Any SHA-256 in it counts as right, so that mistakes behind that check are found too."""
    path = folder / "bank.safetensors"
    path.write_bytes(data)
    with patch.object(storage, "_digest", lambda *content: _EqualToAll(_digest(*content))):
        bank = Bank(**read_bank(path, EXAMPLES))
    assert len(bank.name_of) == len(bank.regions)
    assert len(bank.digest) == 64


def banks() -> Iterator[bytes]:
    """Banks of a few examples, and of none."""
    generator = np.random.default_rng(0)
    for count in (0, 1, 5):
        regions = generator.normal(size=(count, 8)).astype(np.float16)
        space = Space(np.ones((2, 8), np.float32), "float32", {"anchors": "pool"}, "a model", "MIT", "")
        bank = Bank(
            space, ("cup|mug", "-cup"), ("a" * 64,), regions, np.zeros(count, np.int32), np.zeros(count, np.int32),
            np.ones(count, bool), np.full(count, 0.5, np.float32),
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            yield bank.save(Path(folder) / "bank.safetensors").read_bytes()


def open_graph(data: bytes, folder: Path) -> None:
    """The graph of an exported folder, whose SHA-256 the config lists, as that of a malicious folder does."""
    (folder / "regions.onnx").write_bytes(data)
    session = RegionsSession(folder, {"regions.onnx": hashlib.sha256(data).hexdigest()}, "regions.onnx", threads=1)
    masks = np.zeros((1, 4, 4), np.float32)
    encoded = session.run(np.zeros((1, 3, 8, 8), np.float32), (8, 8), masks)
    assert encoded.regions.dtype == np.float32


def graphs() -> Iterator[bytes]:
    """A small graph with the inputs and outputs of that which embeds masks."""
    from onnx import TensorProto, helper

    floats, ints = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("ReduceMean", ["masks"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "axes"], ["column"]),
        helper.make_node("MatMul", ["column", "row"], ["regions"]),
    ]
    inputs = [
        helper.make_tensor_value_info("pixels", floats, [1, 3, "h", "w"]),
        helper.make_tensor_value_info("size", ints, [2]),
        helper.make_tensor_value_info("masks", floats, ["n", "a", "b"]),
    ]
    outputs = [helper.make_tensor_value_info("regions", floats, ["n", 4])]
    constants = [
        helper.make_tensor("axes", ints, [1], [1]),
        helper.make_tensor("row", floats, [1, 4], [1.0, 2.0, 3.0, 4.0]),
    ]
    graph = helper.make_graph(nodes, "regions", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"deop.graph": "regions"})
    yield model.SerializeToString()
    helper.set_model_props(model, {"deop.graph": "encode"})
    yield model.SerializeToString()
    yield b"no graph at all" * 100
    yield json.dumps({"graph": []}).encode()


TARGETS = (
    Target("safetensors", read_tensors, files_of_tensors),
    Target("own-config", read_own_config, own_configs),
    Target("name-table", read_table, tables),
    Target("bank", open_bank, banks),
    Target("onnx", open_graph, graphs),
)
