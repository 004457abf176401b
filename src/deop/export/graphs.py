"""The graphs of a model in float32, and how they are written with weights that they share.

For quantisation (``deop.export.quantize``): ``trace_model`` returns graphs whose weights are initializers, and
``write_graphs`` takes graphs with initializers of any type.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop.errors import SettingError
from deop.export.networks import CellGraph, EncodeGraph, RegionGraph, multiple_of
from deop.export.shared_weights import SharedWeights
from deop.export.tracing import need_onnx, trace
from deop.files import replacing
from deop.model import DeOP
from deop.proposals.transformers_networks import TransformersProposer
from deop.severance import Severance

if TYPE_CHECKING:
    import onnx

ENCODE, REGIONS = "encode", "regions"
"""Names of the graphs."""
WEIGHTS = "weights.safetensors"
"""File with the weights of all graphs of an exported folder."""
LARGEST_SIDE = 16384
"""Largest side of the pixels, in pixels."""

Progress = Callable[[str], None]
"""Called with a line about the step that begins."""


def trace_model(
    model: DeOP, severance: Severance | None = None, *, progress: Progress = lambda line: None
) -> dict[str, "onnx.ModelProto"]:
    """The graphs of a model in float32, with their weights as initializers.

    Args:
        model: in float32 on the CPU.
        severance: where and how attention is severed; None: as in the settings of the model.
        progress: called before each graph.

    Returns:
        "regions", and "encode" if the model has a proposer. Inputs and outputs are those of ``networks.RegionGraph``
        and ``networks.EncodeGraph``.

    Raises:
        SettingError: a model that cannot be exported, or that is not in float32 on the CPU.
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
    """
    need_onnx()
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise SettingError(
            f"export needs a model in float32 on the CPU, not {model.dtype} on {model.device}: load it with "
            'device="cpu"'
        )
    multiple = multiple_of(model)
    height, width = (torch.export.Dim(name, min=2, max=LARGEST_SIDE // multiple) for name in ("h", "w"))
    shapes: dict[str, Any] = {"pixels": {2: multiple * height, 3: multiple * width}, "size": None}
    side = -(-96 // multiple)  # in multiples; the two sides differ, or the exporter would take them to be equal
    example = torch.zeros(1, 3, (side + 2) * multiple, (side + 3) * multiple), torch.tensor([60, 70])
    graphs = {}
    if model.proposer is not None:
        network = EncodeGraph(model, severance).eval()
        progress("tracing the proposer and the encoder")
        name = f"{type(model.encoder).__name__} with {type(model.proposer).__name__}"
        outputs = ("masks", "valid", "regions")
        if isinstance(model.proposer, TransformersProposer):
            cells = example[0].unflatten(2, (-1, multiple)).unflatten(4, (-1, multiple))
            dynamic = {"cells": {2: torch.export.Dim.DYNAMIC, 4: torch.export.Dim.DYNAMIC}, "size": None}
            graph = trace(CellGraph(network).eval(), (cells, example[1]), dynamic, outputs, name)
            graphs[ENCODE] = take_pixels(graph, multiple)
        else:
            graphs[ENCODE] = trace(network, example, shapes, outputs, name)
    progress("tracing the encoder for given masks")
    count, rows, columns = (torch.export.Dim(name, min=2) for name in ("masks", "rows", "columns"))
    shapes["masks"] = {0: count, 1: rows, 2: columns}
    masks = torch.zeros(3, example[0].shape[-2] // 4, example[0].shape[-1] // 4)
    graphs[REGIONS] = trace(
        RegionGraph(model, severance).eval(), (*example, masks), shapes, ("regions",), type(model.encoder).__name__
    )
    return graphs


def take_pixels(graph: "onnx.ModelProto", multiple: int) -> "onnx.ModelProto":
    """A graph of ``networks.CellGraph`` with the inputs of ``networks.EncodeGraph``; changed in place.

    Args:
        graph: its first input is "cells".
        multiple: side of a cell in pixels.
    """
    import onnx

    shape = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])
    graph.graph.input[0].CopyFrom(shape)
    # 0 keeps the size of a dimension and -1 computes it, so that both sides can be divided without arithmetic.
    graph.graph.initializer.append(_shape("cells_of_rows", [0, 0, 0, -1, multiple]))
    graph.graph.initializer.append(_shape("cells_of_columns", [0, 0, 0, 0, -1, multiple]))
    nodes = [
        onnx.helper.make_node("Reshape", ["pixels", "cells_of_rows"], ["cells_by_row"]),
        onnx.helper.make_node("Transpose", ["cells_by_row"], ["cells_turned"], perm=[0, 1, 3, 4, 2]),
        onnx.helper.make_node("Reshape", ["cells_turned", "cells_of_columns"], ["cells_apart"]),
        onnx.helper.make_node("Transpose", ["cells_apart"], ["cells"], perm=[0, 1, 4, 5, 2, 3]),
    ]
    old = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *old])
    return graph


def _shape(name: str, sizes: list[int]) -> "onnx.TensorProto":
    import onnx

    return onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(sizes)], sizes)


def write_graphs(
    graphs: Mapping[str, "onnx.ModelProto"],
    folder: Path,
    *,
    weights: str = WEIGHTS,
    half: bool = False,
    suffix: str = "",
) -> list[str]:
    """Write graphs, and their weights once into a safetensors file beside them; the graphs lose their weights.

    Args:
        graphs: by name, with initializers of any type.
        folder: where to write.
        weights: name of the file for the weights.
        half: store float32 weights as float16, and cast them when the graph is loaded.
        suffix: appended to the names of the graphs, as in "encode.int8.onnx".

    Returns:
        The names of the files: those of the graphs, in order, then that of the weights.

    Raises:
        OutputError: a file cannot be written.
    """
    shared = SharedWeights(weights, half=half)
    for graph in graphs.values():
        shared.take(graph)
    digest = shared.write(folder / weights)
    names = []
    for name, graph in graphs.items():
        names.append(f"{name}{suffix}.onnx")
        write_graph(graph, folder / names[-1], name, digest)
    return [*names, weights]


def write_graph(graph: "onnx.ModelProto", path: Path, name: str, weights_sha256: str) -> None:
    """Write one graph whose weights lie in another file.

    Args:
        graph: without large initializers.
        path: the file.
        name: the graph's name, kept in its metadata.
        weights_sha256: SHA-256 of the file with the weights, kept in its metadata; "" without one.

    Raises:
        OutputError: the file cannot be written.
    """
    graph.ClearField("metadata_props")
    graph.metadata_props.add(key="deop.graph", value=name)
    if weights_sha256:
        graph.metadata_props.add(key="deop.weights.sha256", value=weights_sha256)
    for node in graph.graph.node:
        node.ClearField("name")  # a tenth of the file, and only outputs are referred to by name
    with replacing(path) as file:
        file.write(graph.SerializeToString(deterministic=True))
