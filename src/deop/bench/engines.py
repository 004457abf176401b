"""torch and ONNX Runtime, stage by stage: the small model, and the encoder of CLIP B/16 with masks that are given."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from deop.bench.subjects import NANO_NAMES, SIDES, BenchOptions, clip_model, distinct_names, elliptic_masks
from deop.bench.tables import Goal, Measurement, Row, compare
from deop.bench.timing import Case, time_alternately
from deop.images.preprocessing import pixel_array, resize_photo
from deop.images.reading import read_photo
from deop.surface import ModelSurface
from deop.text.vocabulary import Vocabulary
from deop.zoo import NANO

NANO_GOAL, CLIP_GOAL = 1.8, 1.5
"""Minimum ratio of torch to ONNX Runtime in int8: the small model from photo to map, and the encoder of B/16."""
PEAK_GOAL = 250
"""Maximum peak memory in MiB of a process that segments a photo with the small model in ONNX Runtime."""
MASKS = 25
TORCH, FLOAT32, INT8 = "torch", "ONNX float32", "ONNX int8"

CHILD = """
import json, sys
import numpy as np
import deop
job = json.loads(sys.argv[1])
model = deop.load("nano", engine=job["engine"], dtype=job["dtype"], device="cpu", threads=job["threads"])
photo = np.load(job["photo"])
for _ in range(3):
    model.segment(photo, job["names"])
lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10)
"""


@dataclass
class Engine:
    """A model in one engine, with the inputs of its stages.

    Attributes:
        model: the model.
        path: a photo file.
        names: the vocabulary.
        masks: masks at the size of the photo, for a model without a proposer; else None.
    """

    model: ModelSurface
    path: Path
    names: Vocabulary
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.model.cache = None
        self.photo = read_photo(self.path)
        self.encoded = self.networks()

    def read_and_resize(self) -> np.ndarray:
        """From the file to the pixels that the networks take."""
        resize = self.model.settings.resize
        model: Any = self.model
        config = getattr(model, "config", None)
        normalization = model.encoder.normalization if config is None else config.onnx.normalization
        return pixel_array(resize_photo(read_photo(self.path), resize), normalization, resize.divisor)

    def networks(self) -> Any:
        """From a photo in memory to masks and regions; includes resizing."""
        return self.model.encode([self.photo], None if self.masks is None else [self.masks])[0]

    def classify(self) -> Any:
        """From regions to probabilities."""
        return self.model.class_probabilities(self.encoded, self.names)

    def label(self) -> Any:
        """From regions and masks to the label map; includes ``classify``."""
        return self.model.label(self.encoded, self.names)

    def whole(self) -> Any:
        """From the file to the label map."""
        return self.model.segment(self.path, self.names, masks=self.masks)

    @property
    def stages(self) -> dict[str, Case]:
        """The stages by name."""
        return {
            "read and resize": self.read_and_resize,
            "networks": self.networks,
            "classify": self.classify,
            "label": self.label,
            "photo to map": self.whole,
        }


def measure_engines(options: BenchOptions) -> Measurement:
    """Both engines, always on the CPU, in alternation; then the peak memory of a process of each."""
    from deop.zoo import load

    threads = torch.get_num_threads()
    rows: list[Row] = []
    with TemporaryDirectory(prefix="deop-bench-") as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(options.photo).save(path, quality=92)
        exact: Any = load("nano", engine="torch", device="cpu")
        names = exact.vocabulary(NANO_NAMES)
        engines = {TORCH: Engine(exact, path, names)}
        for label, precision in _precisions(NANO).items():
            model: Any = load("nano", engine="onnx", dtype=precision, device="cpu", threads=threads)
            engines[label] = Engine(model, path, names)
        for stage in engines[TORCH].stages:
            goal = NANO_GOAL if stage == "photo to map" else None
            rows += _compare(options, engines, stage, f"nano, {stage}", goal)
        rows += _memory(options, folder, list(engines), threads)
        if "B/16" in options.towers and not options.quick and not options.short:  # exporting takes minutes
            rows += _clip_rows(options, Path(folder), path, threads)
    return Measurement(
        "engines",
        "torch and ONNX Runtime on the CPU",
        tuple(rows),
        "networks include resizing; label includes classify. B/16: random weights, 512 pixels, given masks.",
    )


def _precisions(folder: Path) -> dict[str, str]:
    """The precisions that a folder has graphs of, by label."""
    graphs = json.loads((folder / "config.json").read_text(encoding="utf-8"))["onnx"]["graphs"]
    return {label: key for label, key in ((FLOAT32, "float32"), (INT8, "int8")) if key in graphs}


def _compare(
    options: BenchOptions, engines: Mapping[str, Engine], stage: str, label: str, goal: float | None
) -> list[Row]:
    """A row for each engine but torch; the goal is that of int8."""
    cases = {name: engine.stages[stage] for name, engine in engines.items()}
    times = time_alternately(cases, options.repeats, torch.device("cpu"), warm_up=2)
    return [
        compare(f"{label}, {name}", times[name], times[TORCH], TORCH, goal if name == INT8 else None)
        for name in list(engines)[1:]
    ]


def _memory(options: BenchOptions, folder: str, labels: list[str], threads: int) -> list[Row]:
    """Peak memory of processes that load the small model and segment the photo three times; only on Linux."""
    if sys.platform != "linux":
        return []
    np.save(Path(folder) / "photo.npy", options.photo)
    rows = []
    for label in labels:
        job = {
            "engine": "torch" if label == TORCH else "onnx",
            "dtype": "int8" if label == INT8 else None,
            "threads": threads,
            "photo": str(Path(folder) / "photo.npy"),
            "names": NANO_NAMES,
        }
        command = [sys.executable, "-c", CHILD, json.dumps(job)]
        process = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if process.returncode:
            raise RuntimeError(f"nano with {label}: {process.stderr.strip()[-2000:]}")
        goal = None if label == TORCH else Goal("peak MiB", PEAK_GOAL, higher_is_better=False)
        figures = {"peak MiB": float(process.stdout.splitlines()[-1])}
        rows.append(Row(f"nano, whole process, {label}", figures=figures, goal=goal))
    return rows


def _clip_rows(options: BenchOptions, folder: Path, path: Path, threads: int) -> list[Row]:
    """The encoder of B/16 with given masks, exported to a temporary folder in both precisions."""
    from deop.export.folder import export_model
    from deop.zoo import load

    model = clip_model("B/16", depth=None, anchors=False, seed=options.seed)
    names = model.vocabulary(distinct_names(20))
    logits = elliptic_masks(MASKS, options.photo.shape[:2], options.seed)
    masks = (logits > 0).numpy()
    masks = masks[masks.any((1, 2))]
    engines = {TORCH: Engine(model, path, names, masks)}
    for label, precision in ((FLOAT32, "float32"), (INT8, "int8")):
        place = folder / precision
        export_model(model, place, precision=precision, names=names, calibrate=[options.photo])
        exported: Any = load(place, engine="onnx", dtype=precision, device="cpu", threads=threads)
        engines[label] = Engine(exported, path, names, masks)
    side, cosines = SIDES["B/16"], _cosines(engines)
    rows = _compare(options, engines, "networks", f"B/16 at {side}, networks", CLIP_GOAL)
    return [
        Row(row.label, row.times, row.against, {**row.figures, "cosine of regions": cosines[name]}, row.goal)
        for row, name in zip(rows, (FLOAT32, INT8), strict=True)
    ]


def _cosines(engines: Mapping[str, Engine]) -> dict[str, float]:
    """Mean cosine of the region embeddings of each engine with those of torch."""
    regions = {name: np.asarray(engine.encoded.regions, np.float32) for name, engine in engines.items()}
    return {name: float((one * regions[TORCH]).sum(1).mean()) for name, one in regions.items()}
