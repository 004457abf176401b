"""Whole photos and whole processes: where the time of a photo goes, sizes of photos, directories, start-up."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from deop.batch.streaming import Failure, segment_stream, write_behind
from deop.bench.subjects import NANO_NAMES, BenchOptions, clip_model, distinct_names, synthetic_photo
from deop.bench.tables import Goal, Measurement, Row, peak_memory
from deop.bench.timing import Case, Function, Times, time_alternately, time_stages
from deop.images.preprocessing import resize_photo, to_pixels
from deop.images.reading import read_photo
from deop.model import DeOP
from deop.regions import encoding, photos
from deop.results.segmentation import Segmentation
from deop.surface import ModelSurface
from deop.text.vocabulary import Vocabulary

STAGES: Mapping[str, Sequence[Function]] = {
    "read": [(photos, "read_photo")],
    "resize": [(photos, "resize_photo"), (photos, "canvas_of"), (photos, "to_batch")],
    "proposals": [(photos, "propose")],
    "encoder": [(DeOP, "encode")],  # the rest of it, as the other stages inside it count for themselves
    "anchors": [(encoding, "choose_anchors"), (encoding, "embed_masks")],
    "classify": [(DeOP, "class_probabilities")],
    "assemble": [(DeOP, "label")],  # the rest of it, as above
    "draw": [(Segmentation, "overlay")],
}
"""The stages from a photo file to a drawn result, and the functions of deop that do the work of each."""

SIDES = (256, 512, 1024, 2048, 4096)
PEAK_GOAL = 3 * 1024
"""Maximum peak memory in MiB for the largest photo."""
CHILD = "from deop.bench.end_to_end import measure_one_size; measure_one_size()"

CPU_PHOTOS, GPU_PHOTOS = 8, 128
SHARE_GOAL = 0.95
"""Minimum rate with reading and writing, as a share of the rate without."""
TRUNK_GOAL = 4.0
"""Maximum duration of the small model, as a multiple of its trunk's."""


def time_one_photo(model: DeOP, path: Path, vocabulary: Vocabulary) -> dict[str, float]:
    """Seconds per stage for one photo from its file to the drawn result."""
    with time_stages(STAGES, model.device) as seconds:
        result = model.segment(path, vocabulary)
        assert isinstance(result, Segmentation)
        result.overlay()
    return seconds


def measure_stages(options: BenchOptions) -> Measurement:
    """The stages of both kinds of model, and the small one against its trunk alone."""
    from deop.zoo import load

    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(options.photo).save(path, quality=92)
        nano = load("nano", engine="torch", device=options.device, dtype=options.dtype)
        clip = clip_model("B/16", seed=options.seed).to(options.device, options.dtype)
        for label, model, names in (("nano", nano, NANO_NAMES), ("B/16, R50", clip, distinct_names(20))):
            model.cache = None
            vocabulary = model.vocabulary(names)
            seconds: dict[str, list[float]] = defaultdict(list)
            for turn in range(2 + options.repeats):
                for stage, duration in time_one_photo(model, path, vocabulary).items():
                    if turn >= 2:
                        seconds[stage].append(duration)
            times = {stage: Times(tuple(durations)) for stage, durations in seconds.items()}
            total = sum(stage_times.p50 for stage_times in times.values())
            rows += [
                Row(f"{label}: {stage}", stage_times, figures={"share": stage_times.p50 / total})
                for stage, stage_times in times.items()
            ]
        rows.append(_compare_with_trunk(options, nano))
    return Measurement("stages", "Where the time of a photo goes", tuple(rows))


def _compare_with_trunk(options: BenchOptions, nano: DeOP) -> Row:
    encoder: Any = nano.encoder
    vocabulary = nano.vocabulary(NANO_NAMES)
    resized = resize_photo(options.photo, nano.settings.resize)
    pixels = to_pixels(resized, encoder.normalization, 32, device=options.device, dtype=options.dtype)[None]

    @torch.inference_mode()
    def trunk() -> object:
        return encoder.trunk.trunk(pixels)

    cases: dict[str, Case] = {"all": partial(nano.segment, options.photo, vocabulary), "trunk": trunk}
    times = time_alternately(cases, options.repeats, options.device)
    ratio = times["all"].p50 / times["trunk"].p50
    goal = Goal("times as long", TRUNK_GOAL, higher_is_better=False)
    return Row("nano: pixels to map", times["all"], ("its trunk alone", times["trunk"]), {"times as long": ratio}, goal)


def measure_photo_sizes(options: BenchOptions) -> Measurement:
    """Time and memory for photos of 256 to 4,096 pixels a side, each size in its own process."""
    rows: list[Row] = []
    for model in ("nano", "B/16"):
        for side in options.shorten(SIDES):
            job = {
                "model": model,
                "side": side,
                "repeats": options.few_repeats,
                "seed": options.seed,
                "device": str(options.device),
                "dtype": str(options.dtype).removeprefix("torch."),
            }
            command = [sys.executable, "-c", CHILD, json.dumps(job)]
            process = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
            if process.returncode:
                raise RuntimeError(f"a photo of {side} x {side} with {model}: {process.stderr.strip()[-2000:]}")
            output = json.loads(process.stdout.splitlines()[-1])
            goal = Goal("peak MiB", PEAK_GOAL, higher_is_better=False) if side == SIDES[-1] else None
            figures = {"peak MiB": output["peak"], "model MiB": output["before"]}
            rows.append(Row(f"{model}, {side} x {side}", Times(tuple(output["seconds"])), figures=figures, goal=goal))
    return Measurement(
        "sizes",
        "Photo to map by size of the photo",
        tuple(rows),
        "Peak: memory of the whole process with libraries and weights, or of the GPU. Model: before the first photo.",
    )


def measure_one_size() -> None:
    """Entry point of a child process: segment a photo of one size several times and print JSON."""
    from deop.zoo import load

    job = json.loads(sys.argv[1])
    device, dtype = torch.device(job["device"]), getattr(torch, job["dtype"])
    is_nano = job["model"] == "nano"
    model = load("nano", engine="torch") if is_nano else clip_model(job["model"], seed=job["seed"])
    model = model.to(device, dtype)
    model.cache = None
    photo = synthetic_photo(job["side"], job["side"], job["seed"])
    vocabulary = model.vocabulary(NANO_NAMES if is_nano else distinct_names(20))
    model.embed(vocabulary)
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated() / 2**20 if on_gpu else peak_memory()
    times = time_alternately({"photo": partial(model.segment, photo, vocabulary)}, job["repeats"], device)["photo"]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory()
    print(json.dumps({"seconds": times.seconds, "before": before, "peak": peak}))


def measure_directory(options: BenchOptions) -> Measurement:
    """Photos of 640 x 480 and 480 x 640 on disk to label maps on disk, as ``deop segment DIR --labels OUT`` does."""
    from deop.zoo import load

    on_cpu = options.device.type == "cpu"
    count = 2 if options.quick else CPU_PHOTOS if on_cpu else GPU_PHOTOS
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        paths = []
        for index in range(count):
            size = (480, 640) if index % 3 else (640, 480)
            paths.append(Path(folder) / f"{index:04}.jpg")
            Image.fromarray(synthetic_photo(*size, seed=index)).save(paths[-1], quality=92)
        light = on_cpu and options.dtype == torch.float32
        nano: Any = (
            load("nano", engine="onnx", device="cpu", threads=torch.get_num_threads())
            if light
            else load("nano", engine="torch", device=options.device, dtype=options.dtype)
        )
        clip = clip_model("B/16", seed=options.seed).to(options.device, options.dtype)
        label_of_nano = "nano, ONNX" if light else "nano, torch"
        for label, model, names in ((label_of_nano, nano, NANO_NAMES), ("B/16, R50", clip, distinct_names(20))):
            model.cache = None
            vocabulary = model.vocabulary(names)
            photos = paths if not on_cpu or model is nano else paths[: max(2, count // 2)]
            for batch in (1,) if on_cpu else (1, 8, 32):
                row_label = f"{label}, {len(photos)} photos, batch {batch}"
                rows.append(_measure_files(options, row_label, model, vocabulary, photos, batch))
    return Measurement(
        "folder",
        "Photos on disk to label maps on disk",
        tuple(rows),
        "The other: the same photos from memory to label maps in memory, without reading and writing files.",
    )


def _measure_files(
    options: BenchOptions, label: str, model: ModelSurface, vocabulary: Vocabulary, paths: list[Path], batch: int
) -> Row:
    photos = [read_photo(path) for path in paths]

    def in_memory() -> None:
        for _ in segment_stream(model, photos, vocabulary, batch=batch):
            pass

    def save(number: int, result: Segmentation | Failure) -> None:
        assert isinstance(result, Segmentation), result
        result.save_labels(paths[number].with_suffix(".png"))

    def on_disk() -> None:
        for _ in write_behind(segment_stream(model, paths, vocabulary, batch=batch), save):
            pass

    cases: dict[str, Case] = {"whole": on_disk, "pure": in_memory}
    times = time_alternately(cases, options.few_repeats, options.device)
    rate, maximum = (len(paths) / times[key].p50 for key in ("whole", "pure"))
    figures = {"photos/s": rate, "share": rate / maximum}
    return Row(label, times["whole"], ("pure", times["pure"]), figures, Goal("share", SHARE_GOAL))


def measure_start_up(options: BenchOptions) -> Measurement:
    """Whole processes, including the start of the interpreter: help, torch's import, a photo in each engine."""
    with TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        Image.fromarray(options.photo).save(photo)

        def run(*words: str) -> None:
            subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)

        segment = ("-m", "deop", "segment", photo.name, "--classes", "cat, wall")
        cases: dict[str, Case] = {
            "python": partial(run, "-c", "pass"),
            "deop --help": partial(run, "-m", "deop", "--help"),
            "import torch": partial(run, "-c", "import torch"),
            "deop segment, nano, torch": partial(run, *segment, "--engine", "torch"),
            "deop segment, nano, ONNX": partial(run, *segment),
        }
        times = time_alternately(cases, options.repeats, torch.device("cpu"))
    base = times["import torch"].p50
    rows = tuple(
        Row(name, case_times, figures={"of import torch, ratio": case_times.p50 / base})
        for name, case_times in times.items()
    )
    return Measurement("start", "Start-up: from the start of the process to its end", rows)
