"""Peak memory of a process that segments one photo: by its size, by names and by masks, in both engines."""

import json
import subprocess
import sys
from typing import Any

import numpy as np

from deop.bench.subjects import NANO_NAMES, BenchOptions
from deop.bench.tables import Measurement, Row
from deop.bench.timing import Times, report
from deop.errors import SettingError

SIDES = (512, 1024, 2048, 4096, 6144)
NAMES = (1_000, 10_000)
MASKS = (10, 100, 400)
SIDE = 1024
"""Side of the photo where names and masks are counted, pixels."""
LIMITS = (2, 8)
"""GiB of memory for which the largest photo is computed."""

# A process of its own for each cell, without the libraries of the bench: a process's peak never falls, and the light
# engine works without torch. Only Linux reports the peak so that it does not include that of the parent.
CHILD = """
import json, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
import deop
job = json.loads(sys.argv[1])
side, count = job["side"], job["masks"]
model = deop.load("nano", engine=job["engine"], device="cpu", threads=job["threads"])
small = np.random.default_rng(job["seed"]).integers(0, 256, (side // 64, side // 64, 3), np.uint8)
photo = small.repeat(64, 0).repeat(64, 1)
names = job["names"] + [word for word in model.text.words if word.isalpha() and len(word) > 3]
vocabulary = model.vocabulary(list(dict.fromkeys(names))[: job["count"]])
model.embed(vocabulary)
masks = None
if count:
    masks = np.zeros((count, side, side), bool)
    for number, mask in enumerate(masks):
        y, x = divmod(number * 37 % 256, 16)
        mask[y * side // 16 : (y + 2) * side // 16, x * side // 16 : (x + 2) * side // 16] = True
def peak():
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
before = peak()
started = time.perf_counter()
result = model.segment(photo, vocabulary, masks=masks)
seconds = time.perf_counter() - started
after = peak()
if job["picture"]:
    result.overlay()
print(json.dumps({"before": before, "peak": peak() if job["picture"] else after, "seconds": seconds}))
"""


def measure_memory(options: BenchOptions) -> Measurement:
    """The peak of each cell, and the largest photo that fits in a given memory."""
    if sys.platform != "linux":
        raise SettingError("deop bench memory works on Linux only: other systems do not report the peak of a process")
    rows = []
    for engine in ("onnx", "torch"):
        peaks: dict[bool, dict[int, float]] = {False: {}, True: {}}
        for side in options.shorten(SIDES):
            for picture in (False, True):
                cell = _cell(options, engine, side=side, picture=picture)
                peaks[picture][side] = cell["peak"]
                what = "map and picture" if picture else "map"
                rows.append(_row(f"{engine}, {side} x {side}, {what}", cell))
        for count in options.shorten(NAMES):
            rows.append(_row(f"{engine}, {SIDE} x {SIDE}, {count:,} names", _cell(options, engine, count=count)))
        for count in options.shorten(MASKS):
            rows.append(_row(f"{engine}, {SIDE} x {SIDE}, {count} given masks", _cell(options, engine, masks=count)))
        for picture, by_side in peaks.items():
            for limit in LIMITS:
                largest = largest_side(by_side, limit * 1024)
                what = "map and picture" if picture else "map"
                label = f"{engine}, largest photo in {limit} GiB, {what}"
                rows.append(Row(label, figures={"side": largest, "megapixels": largest**2 / 1e6}))
    return Measurement(
        "memory",
        "Peak memory of a process: nano, a square photo, five names and its own masks if nothing else is said",
        tuple(rows),
        "Before: libraries, weights, photo, names and given masks. The largest photo is computed from the line through "
        "the two largest sizes; larger ones are segmented in tiles (deop segment --tiles).",
    )


def largest_side(peaks: dict[int, float], limit: float) -> float:
    """Side of the largest square photo whose peak stays below a limit, if memory grows linearly with its pixels.

    Args:
        peaks: peak memory in MiB by side in pixels, of at least two sides.
        limit: in MiB.

    >>> round(largest_side({100: 20.0, 200: 50.0}, 130.0))
    346
    """
    (small, low), (large, high) = sorted(peaks.items())[-2:]
    slope = (high - low) / (large**2 - small**2)
    return float(np.sqrt(max(0.0, small**2 + (limit - low) / slope)))


def _row(label: str, cell: dict[str, Any]) -> Row:
    figures = {"peak MiB": cell["peak"], "before MiB": cell["before"]}
    return Row(label, Times((cell["seconds"],)), figures=figures)


def _cell(
    options: BenchOptions, engine: str, *, side: int = SIDE, count: int = 5, masks: int = 0, picture: bool = False
) -> dict[str, Any]:
    """Run one process: its peak in MiB, the peak before the photo, and the seconds of the photo."""
    import torch

    report(f"{engine}, {side} px, {count} names, {masks or 'own'} masks")
    job = {
        "engine": engine, "side": side, "count": count, "masks": masks, "picture": picture, "seed": options.seed,
        "threads": torch.get_num_threads(), "names": NANO_NAMES,
    }  # fmt: skip
    command = [sys.executable, "-c", CHILD, json.dumps(job)]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if process.returncode:
        raise RuntimeError(f"nano in {engine}, {side} x {side} px: {process.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result
