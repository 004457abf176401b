"""What an ONNX file refers to, read without the onnx library, so that a file can be refused before anything runs it.

Only the fields that lead to tensors are read (onnx.proto, protocol buffers' wire format): the rest is skipped.
"""

from collections.abc import Iterator

# Message -> field number -> message in that field.
_MODEL = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "location"},
}
_DEPTH = 32


def references(graph: bytes) -> tuple[set[str], dict[str, str]]:
    """The files that the tensors of a graph lie in, and the metadata of the graph.

    Args:
        graph: the content of an ONNX file.

    Returns:
        The "location" of every tensor with external data, as written; and the entries of ``metadata_props``.

    Raises:
        ValueError: the content is not an ONNX model.
    """
    locations: set[str] = set()
    metadata: dict[str, str] = {}

    def read(message: str, data: memoryview, depth: int) -> None:
        if depth > _DEPTH:
            raise ValueError("its graphs are nested too deeply")
        parts = _MODEL[message]
        for number, value in _fields(data):
            kind = parts.get(number)
            if kind is None:
                continue
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} of a {message} is a number")
            if kind == "entry":
                key, entry = _entry(value)
                metadata[key] = entry
            elif kind == "location":
                key, entry = _entry(value)
                if key == "location":
                    locations.add(entry)
            else:
                read(kind, value, depth + 1)

    view = memoryview(graph)
    if 7 not in {number for number, _ in _fields(view)}:
        raise ValueError("it has no graph")
    read("model", view, 0)
    return locations, metadata


def _entry(data: memoryview) -> tuple[str, str]:
    """A StringStringEntryProto."""
    fields = {number: bytes(value).decode() for number, value in _fields(data) if isinstance(value, memoryview)}
    return fields.get(1, ""), fields.get(2, "")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message; numbers of fixed width are skipped."""
    position = 0
    while position < len(data):
        tag, position = _number(data, position)
        kind = tag & 7
        if kind == 0:
            value, position = _number(data, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _number(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("it is not in the format of protocol buffers")
        if position + length > len(data):
            raise ValueError("it ends too early")
        if kind == 2:
            yield tag >> 3, data[position : position + length]
        position += length


def _number(data: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
    raise ValueError("it ends too early or is not in the format of protocol buffers")
