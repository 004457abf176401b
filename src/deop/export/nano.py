"""``python -m deop.export.nano``: write the ONNX graph of the built-in model beside its weights (takes a minute)."""

import sys
from pathlib import Path

from deop.export.encode import export_encoder
from deop.zoo import NANO, load


def main(folder: Path = NANO) -> None:
    """Export the model in a folder, by default the built-in one, and print the size of the graph."""
    graph = export_encoder(load(folder, device="cpu"), folder)
    print(f"{graph}: {graph.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
