"""Time and memory against the size of the photo: each size in a process of its own, which tells its peak."""

import json
import subprocess
import sys

from deop.bench.report import Goal, Part, Row, peak_memory
from deop.bench.setup import Setup
from deop.bench.timing import Times

SIDES = (256, 512, 1024, 2048, 4096)
MOST_MIB = 3 * 1024
CHILD = "from deop.bench.sizes import child; child()"


def sizes(setup: Setup) -> Part:
    """Photos from 256 to 4,096 pixels a side, by the model that ships and by CLIP B/16 with R50."""
    rows: list[Row] = []
    for model in ("nano", "B/16"):
        for side in setup.some(SIDES):
            asked = {"model": model, "side": side, "repeats": setup.few, "seed": setup.seed,
                     "device": str(setup.device), "dtype": str(setup.dtype).removeprefix("torch.")}  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", CHILD, json.dumps(asked)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"a photo of {side} x {side} with {model}: {done.stderr.strip()[-2000:]}")
            answer = json.loads(done.stdout.splitlines()[-1])
            goal = Goal("peak MiB", MOST_MIB, least=False) if side == SIDES[-1] else None
            figures = {"peak MiB": answer["peak"], "model MiB": answer["before"]}
            rows.append(Row(f"{model}, {side} x {side}", Times(tuple(answer["seconds"])), figures=figures, goal=goal))
    return Part(
        "sizes",
        "Photo to map by size of the photo",
        tuple(rows),
        "Peak: of the whole process with libraries and weights, or of a GPU's memory; model: before the first photo.",
    )


def child() -> None:
    """What one process does: a photo of one size, several times; prints JSON."""
    import torch

    from deop.bench.subjects import NANO_NAMES, clip_model, names, synthetic_photo
    from deop.bench.timing import take_turns
    from deop.zoo import load

    asked = json.loads(sys.argv[1])
    device, dtype = torch.device(asked["device"]), getattr(torch, asked["dtype"])
    model = load("nano") if asked["model"] == "nano" else clip_model(asked["model"], seed=asked["seed"])
    model = model.to(device, dtype)
    model.cache = None
    photo = synthetic_photo(asked["side"], asked["side"], asked["seed"])
    words = model.vocabulary(names(20) if asked["model"] != "nano" else NANO_NAMES)
    model.embed(words)
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated() / 2**20 if on_gpu else peak_memory()
    found = take_turns({"photo": lambda: model.segment(photo, words)}, asked["repeats"], device)["photo"]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_memory()
    print(json.dumps({"seconds": found.seconds, "before": before, "peak": peak}))
