"""One safetensors file with the weights of several ONNX graphs, each array once."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.files import replacing, sha256

if TYPE_CHECKING:
    import onnx

SMALLEST = 256
"""Arrays of fewer numbers stay in the graph; ONNX Runtime needs some of them while it loads it."""
_ALIGNMENT = 64
_NAMES = {
    "float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64", "bool": "BOOL",
    "float64": "F64", "int16": "I16", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip


class SharedWeights:
    """Collects the initializers of graphs, which then refer to them as ONNX external data.

    Args:
        name: name of the file, which lies beside the graphs.
        half: store float32 as float16; a Cast in the graph, which is computed once when it is loaded, undoes it.
    """

    def __init__(self, name: str, *, half: bool = False) -> None:
        self.name, self.half = name, half
        self._arrays: dict[str, np.ndarray] = {}
        self._keys: dict[bytes, str] = {}
        self._references: list[tuple[onnx.TensorProto, str]] = []

    def take(self, model: "onnx.ModelProto") -> None:
        """Take the large initializers of a graph, in place; ``write`` completes the references.

        The file has their names from the first graph that has them.
        """
        from onnx import TensorProto, helper, numpy_helper

        graph = model.graph
        casts = []
        for initializer in graph.initializer:
            if int(np.prod(initializer.dims)) < SMALLEST or initializer.data_location == TensorProto.EXTERNAL:
                continue
            array = numpy_helper.to_array(initializer)
            if array.dtype.name not in _NAMES:
                continue
            if self.half and array.dtype == np.float32:
                array = _to_half(array)
                casts.append(helper.make_node("Cast", [f"{initializer.name}::half"], [initializer.name], to=1))
                initializer.name = f"{initializer.name}::half"
            key = self._add(initializer.name.removesuffix("::half"), array)
            reference = TensorProto(name=initializer.name, dims=array.shape, data_location=TensorProto.EXTERNAL)
            reference.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            initializer.CopyFrom(reference)
            self._references.append((initializer, key))
        nodes = [*casts, *graph.node]
        if casts:
            graph.ClearField("node")
            graph.node.extend(nodes)

    def _add(self, name: str, array: np.ndarray) -> str:
        """The key of an array in the file; arrays of the same dtype, shape and values share one."""
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
        if (key := self._keys.get(digest.digest())) is not None:
            return key
        key = name
        number = 2
        while key in self._arrays:
            key, number = f"{name}.{number}", number + 1
        self._keys[digest.digest()] = key
        self._arrays[key] = array
        return key

    def write(self, path: Path) -> str:
        """Write the file, and complete the references of the graphs to it.

        Returns:
            Its SHA-256.

        Raises:
            OutputError: it cannot be written.
        """
        # Aligned, as safetensors sorts: the largest type first.
        keys = sorted(self._arrays, key=lambda key: (-self._arrays[key].dtype.itemsize, key))
        header: dict[str, Any] = {"__metadata__": {"format": "onnx"}}
        places, end = {}, 0
        for key in keys:
            array = self._arrays[key]
            places[key] = end, array.nbytes
            header[key] = {
                "dtype": _NAMES[array.dtype.name],
                "shape": list(array.shape),
                "data_offsets": [end, end + array.nbytes],
            }
            end += array.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        with replacing(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for key in keys:
                file.write(np.ascontiguousarray(self._arrays[key]).data)
        for tensor, key in self._references:
            start, length = places[key]
            entries = {"location": self.name, "offset": 8 + len(text) + start, "length": length}
            tensor.ClearField("external_data")
            for name, value in entries.items():
                tensor.external_data.add(key=name, value=str(value))
        return sha256(path)


def _to_half(array: np.ndarray) -> np.ndarray:
    """float16, in which numbers beyond its range become its largest one."""
    largest = np.finfo(np.float16).max
    return np.clip(array, -largest, largest).astype(np.float16)
