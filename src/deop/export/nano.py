"""``python -m deop.export.nano``: write the ONNX graphs of the built-in model beside its weights (takes a minute)."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from deop.export.encode import GRAPH, MULTIPLE, WEIGHTS, export_encoder
from deop.files import read_json, replacing, sha256
from deop.model import DeOP
from deop.runtime.config import VERSION, Graphs, OnnxParts, TextParts
from deop.text.words import WORDS
from deop.zoo import NANO, load


def main(folder: Path = NANO) -> None:
    """Export the model in a folder, by default the built-in one, and print the size of the graph."""
    model = load(folder, engine="torch", device="cpu")
    graph = export_encoder(model, folder)
    describe_graphs(model, folder)
    print(f"{graph}: {graph.stat().st_size / 1e3:.0f} kB")


def describe_graphs(model: DeOP, folder: Path) -> None:
    """Write the section "onnx" of the config of a folder, about the graphs that lie in it."""
    graphs = Graphs(encode=GRAPH)
    parts = OnnxParts(
        version=VERSION,
        graphs={"float32": asdict(graphs)},
        files={name: sha256(folder / name) for name in (GRAPH, WEIGHTS, WORDS)},
        text=TextParts("words", file=WEIGHTS, width=model.text.width),
        normalization=model.encoder.normalization,
        multiple=MULTIPLE,
        smallest=2 * MULTIPLE,
        masks_are_instances=bool(model.proposer.masks_are_instances),
    )
    config = read_json(folder / "config.json")
    config["onnx"] = asdict(parts)
    with replacing(folder / "config.json") as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
