"""Our reader of safetensors files agrees with the library's, and refuses what is malformed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from deop.errors import CheckpointError
from deop.tensors import TensorFile

DTYPES = st.sampled_from(["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)))


@settings(deadline=None, max_examples=50)
@given(tensors=st.dictionaries(st.text("ab.:é", min_size=1, max_size=4), ARRAYS, max_size=5))
def test_equals_the_library(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    file, expected = TensorFile(path), load_file(path)
    assert set(file.tensors) == set(expected) == set(tensors)
    data = path.read_bytes()
    for key, value in expected.items():
        assert file[key].dtype == value.dtype
        np.testing.assert_array_equal(file[key], tensors[key])
        place = file.tensors[key]
        assert place.shape == value.shape
        assert data[place.offset : place.offset + place.length] == np.ascontiguousarray(tensors[key]).tobytes()


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start, stop, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 9)}, "end at byte"),
        ({"a": entry(0, 7)}, "end at byte"),
        ({"a": entry(1, 8)}, "begins at byte"),
        ({"a": entry(0, 5), "b": entry(4, 8)}, "begins at byte"),
        ({"a": entry(0, 3), "b": entry(4, 8)}, "begins at byte"),
        ({"a": entry(0, 8, [7])}, "8 bytes, and .* has 7"),
        ({"a": entry(0, 8, [2], "F64")}, "8 bytes, and .* has 16"),
        ({"a": entry(0, 8, [1 << 62, 1 << 62])}, "8 bytes"),
        ({"a": entry(8, 0, [])}, "bytes"),
        ({"a": entry(-8, 0, [8])}, "not lists of integers"),
        ({"a": entry(0, 8, [-2, -4])}, "not lists of integers"),
        ({"a": entry(0, 8, [8.0])}, "not lists of integers"),
        ({"a": entry(0, 8, [True, 8])}, "not lists of integers"),
        ({"a": entry(0, 8, 8)}, "not lists of integers"),
        ({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 4, 8]}}, "not lists of integers"),
        ({"a": entry(0, 8, [8], "Q8")}, "unknown dtype 'Q8'"),
        ({"a": entry(0, 8, [8], [1])}, "unknown dtype"),
        ({"a": {"dtype": "U8", "shape": [8]}}, "lacks dtype"),
        ({"a": entry(0, 8) | {"file": "/etc/passwd"}}, "lacks dtype"),
        ({"a": 1}, "lacks dtype"),
        ({"a": None}, "lacks dtype"),
        ([], "not a table"),
        (b'{"a": {}, "a": {}}', "twice"),
        (b"{ ", "Expecting"),
        (b"[" * 100_000, "cannot read"),
        (b'{"\xff": 1}', "utf-8"),
    ],
)
def test_malformed_headers_are_refused(tmp_path, header, message):
    with pytest.raises(CheckpointError, match=message):
        TensorFile(write(tmp_path / "x.safetensors", header, bytes(8)))


@pytest.mark.parametrize("length", [0, 1, 3, 1 << 20, 1 << 63])
def test_wrong_lengths_of_the_header_are_refused(tmp_path, length):
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        TensorFile(write(tmp_path / "x.safetensors", {"a": entry(0, 8)}, bytes(8), length))


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8)])
def test_short_files_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="it has no header"):
        TensorFile(path)


def test_missing_files_and_keys_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        TensorFile(tmp_path / "nowhere.safetensors")
    file = TensorFile(write(tmp_path / "x.safetensors", {"a": entry(0, 8), "b": entry(8, 12, [2], "BF16")}, bytes(12)))
    with pytest.raises(CheckpointError, match="no tensor c"):
        file["c"]
    with pytest.raises(CheckpointError, match="BF16"):
        file["b"]
    with pytest.raises(ValueError, match="read-only"):
        file["a"][0] = 1
    file.path.unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        file["a"]


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_damage_is_an_error_of_ours_or_leaves_tensors_inside_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tensors")
    save_file({"a": np.arange(6, dtype="<f4"), "b": np.ones((2, 3), np.int8)}, folder / "x.safetensors")
    content = bytearray((folder / "x.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    (folder / "x.safetensors").write_bytes(damaged)
    try:
        file = TensorFile(folder / "x.safetensors")
    except CheckpointError:
        return
    assert all(place.offset + place.length <= len(damaged) for place in file.tensors.values())
