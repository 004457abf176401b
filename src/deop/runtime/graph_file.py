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

    def read(message: str, start: int, end: int, depth: int) -> None:
        if depth > _DEPTH:
            raise ValueError("its graphs are nested too deeply")
        parts = _MODEL[message]
        for number, first, last in _fields(graph, start, end):
            kind = parts.get(number)
            if kind is None:
                continue
            if first < 0:
                raise ValueError(f"field {number} of a {message} is a number")
            if kind == "entry":
                key, entry = _entry(graph, first, last)
                metadata[key] = entry
            elif kind == "location":
                key, entry = _entry(graph, first, last)
                if key == "location":
                    locations.add(entry)
            else:
                read(kind, first, last, depth + 1)

    if 7 not in {number for number, _, _ in _fields(graph, 0, len(graph))}:
        raise ValueError("it has no graph")
    read("model", 0, len(graph), 0)
    return locations, metadata


def _entry(data: bytes, start: int, end: int) -> tuple[str, str]:
    """A StringStringEntryProto."""
    fields = {number: data[first:last].decode() for number, first, last in _fields(data, start, end) if first >= 0}
    return fields.get(1, ""), fields.get(2, "")


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of the message in ``data[start:end]``: their number and where their content lies.

    The content of a field that is a number lies at -1 to -1; numbers of fixed width are skipped.
    """
    position = start
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _number(data, position - 1, end)
        kind = tag & 7
        if kind == 2:
            if position >= end:
                raise ValueError("it ends too early")
            length = data[position]
            position += 1
            if length > 127:
                length, position = _number(data, position - 1, end)
        elif kind == 0:
            _, position = _number(data, position, end)
            yield tag >> 3, -1, -1
            continue
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("it is not in the format of protocol buffers")
        if position + length > end:
            raise ValueError("it ends too early")
        if kind == 2:
            yield tag >> 3, position, position + length
        position += length


def _number(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
    raise ValueError("it ends too early or is not in the format of protocol buffers")
