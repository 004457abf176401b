"""How far the labels of the example photos depend on anything but the photo and the names.

    python benchmarks/same_answer.py
    python benchmarks/same_answer.py --json agreement.json

``nano`` segments the photos of examples/, with a few names for each and with the 358 names of the list "everyday", in a
process of its own for each line of the table: again, with other numbers of threads, in a batch, with the kernels of
older processors, with the other engine, and in other precisions. On labelled photos, ``engines_agree.py`` also compares
the scores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PHOTOS = Path(__file__).parents[1] / "examples"
NAMES = {
    "astronaut.jpg": "person, flag, wall",
    "chelsea.png": "cat, floor, wall",
    "coffee.jpg": "cup, saucer, spoon, table",
    "pagoda.jpg": "sky, pagoda|temple, tree, lake|sea",
    "rocket.jpg": "rocket, sky, smoke, grass",
}
OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        changes: what is different.
        engine, dtype, threads, batch: how the photos are segmented; batch 0: all photos in one call.
        reference: the engine, in float32, with two threads and photo by photo, that the labels are compared with.
        promise: the share of equal pixels that docs/promises.md promises.
        environment: variables of the process.
    """

    changes: str
    engine: str
    promise: float
    reference: str = ""
    dtype: str = "float32"
    threads: int = 2
    batch: int = 1
    environment: dict[str, str] = field(default_factory=dict)


LINES = (
    Line("nothing: another process", "torch", 1, environment={"PYTHONHASHSEED": "1"}),
    Line("nothing: another process", "onnx", 1, environment={"PYTHONHASHSEED": "1"}),
    Line("1 thread instead of 2", "torch", 0.999, threads=1),
    Line("1 thread instead of 2", "onnx", 0.999, threads=1),
    Line("4 threads", "torch", 0.999, threads=4),
    Line("4 threads", "onnx", 0.999, threads=4),
    Line("5 photos in one batch", "torch", 0.999, batch=0),
    Line("5 photos in one batch", "onnx", 1, batch=0),
    Line("kernels for SSE 4.1", "torch", 0.999, environment=OLDER),
    Line("engine", "onnx", 0.999, "torch"),
    Line("int8", "onnx", 0.98, "torch", dtype="int8"),
    Line("float16", "torch", 0.99, dtype="float16"),
    Line("bfloat16", "torch", 0.96, dtype="bfloat16"),
    Line("int8", "torch", 0.98, dtype="int8"),
)
REFERENCES = {engine: Line("", engine, 1) for engine in ("torch", "onnx")}


def label(line: Line, file: Path) -> None:
    """Segment the photos and write the label maps, as the process of a line does."""
    import deop
    from deop.text.builtin import builtin_vocabulary

    model = deop.load("nano", engine=line.engine, device="cpu", dtype=line.dtype, threads=line.threads)
    model.cache, maps = None, {}
    everyday = builtin_vocabulary("everyday")
    photos = [str(PHOTOS / name) for name in NAMES]
    size = line.batch or len(photos)
    for first in range(0, len(photos), size):
        for one in model.encode(photos[first : first + size]):
            name = Path(str(one.source)).name
            maps[name] = model.label(one, NAMES[name]).label_map
            maps[f"{name}, everyday"] = model.label(one, everyday).label_map
    np.savez(file, **{name: labels.astype(np.int16) for name, labels in maps.items()})


def run(line: Line, folder: Path) -> dict[str, np.ndarray]:
    """The label maps of a line, from a process of its own."""
    file = folder / "maps.npz"
    settings = json.dumps({"engine": line.engine, "dtype": line.dtype, "threads": line.threads, "batch": line.batch})
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE"}  # the answer is the same, and a busy machine slows it down less
    command = [sys.executable, "-W", "ignore", __file__, "--process", settings, str(file)]
    subprocess.run(command, env=environment | line.environment, check=True)
    with np.load(file) as arrays:
        return dict(arrays)


def compare(one: dict[str, np.ndarray], other: dict[str, np.ndarray], names: str) -> tuple[float, float]:
    """The share of equal pixels over all photos, and in the photo where it is lowest."""
    equal = [one[name] == other[name] for name in one if name.endswith(", everyday") == (names == "everyday")]
    return sum(int(part.sum()) for part in equal) / sum(part.size for part in equal), min(p.mean() for p in equal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the shares as JSON")
    parser.add_argument("--process", nargs=2, metavar=("SETTINGS", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        label(Line("", promise=0, **json.loads(arguments.process[0])), Path(arguments.process[1]))
        return
    print("| what changes | engine | compared with | equal pixels, own names | 358 names | promised, own names |")
    print("|---|---|---|---|---|---|")
    written = []
    with tempfile.TemporaryDirectory() as name:
        references = {engine: run(line, Path(name)) for engine, line in REFERENCES.items()}
        for line in LINES:
            reference = line.reference or line.engine
            maps = run(line, Path(name))
            own, many = (compare(references[reference], maps, names) for names in ("own", "everyday"))
            shown = [f"{100 * share:.3f} % (worst photo {100 * worst:.2f} %)" for share, worst in (own, many)]
            verdict = "" if own[0] >= line.promise else ", **missed**"
            cells = [line.changes, line.engine, f"{reference}, float32", *shown, f"{100 * line.promise:g} %{verdict}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            written.append({"changes": line.changes, "engine": line.engine, "own": own, "everyday": many})
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
