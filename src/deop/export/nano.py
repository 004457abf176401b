"""``python -m deop.export.nano PHOTO...``: write the ONNX graphs of the built-in model beside its weights.

The graphs have no weights of their own: they refer to the model's ``model.safetensors``. Those in int8 need photos to
observe ranges of activations. Without photos only those in float32 are written; those in int8 stay if the weights are
the same. It takes some minutes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deop.export.graphs import trace_model, write_graph
from deop.export.int8 import quantized
from deop.export.stored_weights import StoredWeights, refer_to_weights
from deop.export.webgpu import rewrite_for_webgpu
from deop.files import read_json, replacing, sha256
from deop.model import DeOP
from deop.runtime.config import VERSION, Graphs, OnnxParts, TextParts
from deop.text.words import WORDS
from deop.zoo import NANO, load

if TYPE_CHECKING:
    import onnx

WEIGHTS = "model.safetensors"
MULTIPLE, SMALLEST = 32, 64


def main(folder: Path = NANO, photos: Sequence[Path] = ()) -> None:
    """Export the model in a folder, by default the built-in one, and print the sizes of the graphs.

    Args:
        folder: the model, in deop's own format.
        photos: training photos that ranges for int8 are observed on; none: no new graphs in int8.
    """
    model = load(folder, engine="torch", device="cpu")
    known = read_json(folder / "config.json").get("onnx", {"graphs": {}, "files": {}})
    graphs = {"float32": trace_model(model, progress=print)}
    if photos:
        print(f"observing ranges on {len(photos)} photos")
        graphs["int8"] = quantized(model, model.settings.severance, graphs["float32"], photos)
    suffixes = {"float32": "", "int8": ".int8"}
    written = {key: write_beside_weights(one, folder, suffixes[key]) for key, one in graphs.items()}
    if known["files"].get(WEIGHTS) == sha256(folder / WEIGHTS):
        written |= {key: Graphs(**names) for key, names in known["graphs"].items() if key not in written}
    describe_graphs(model, folder, written)
    for file in sorted(folder.glob("*.onnx")):
        print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


def write_beside_weights(graphs: "Mapping[str, onnx.ModelProto]", folder: Path, suffix: str = "") -> Graphs:
    """Write graphs whose weights lie in the ``model.safetensors`` of the same folder.

    Args:
        graphs: "encode" and "regions", with their weights as initializers; they lose them.
        folder: with ``model.safetensors``.
        suffix: appended to the names of the graphs, as in "encode.int8.onnx".

    Returns:
        The names of the files.

    Raises:
        CheckpointError: ``model.safetensors`` is missing or damaged, or holds the weights of another model.
        OutputError: a graph cannot be written.
    """
    weights = StoredWeights(folder / WEIGHTS)
    digest = sha256(folder / WEIGHTS)
    names = {}
    for name, graph in graphs.items():
        refer_to_weights(graph, weights)
        rewrite_for_webgpu(graph)
        names[name] = f"{name}{suffix}.onnx"
        write_graph(graph, folder / names[name], name, digest)
    return Graphs(**names)


def describe_graphs(model: DeOP, folder: Path, graphs: Mapping[str, Graphs]) -> None:
    """Write the section "onnx" of the config of a folder.

    Args:
        model: the model of the folder.
        folder: in deop's own format, with the graphs in it.
        graphs: by precision; the first is the default.
    """
    files = [name for one in graphs.values() for name in (one.encode, one.regions) if name is not None]
    parts = OnnxParts(
        version=VERSION,
        graphs={precision: asdict(one) for precision, one in graphs.items()},
        files={name: sha256(folder / name) for name in (*files, WEIGHTS, WORDS)},
        text=TextParts("words", file=WEIGHTS, width=model.text.width),
        normalization=model.encoder.normalization,
        multiple=MULTIPLE,
        smallest=SMALLEST,
        masks_are_instances=bool(model.proposer.masks_are_instances),
    )
    config = read_json(folder / "config.json")
    config["onnx"] = asdict(parts)
    with replacing(folder / "config.json") as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


if __name__ == "__main__":
    main(photos=[Path(argument) for argument in sys.argv[1:]])
