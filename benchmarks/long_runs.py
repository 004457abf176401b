"""Thousands of photos of mixed size through `segment_stream`, the server and a batch: is memory flat?

    python -m benchmarks.long_runs [stream] [server] [batch] [--photos 2000] [--json FILE]

Makes photos with a longer side of 16 to 800 pixels from those of `examples/`: JPEG, PNG and WebP, cut and scaled at
random, seed 0. The last one is a copy of the first, and its answer must be equal. The model is `nano` at a short side
of 160 pixels instead of 448, so that a run takes minutes; `--short-side 448` is the model as it is. Each way runs in
processes of its own, whose resident memory, open files and threads are read from /proc (Linux). Prints one JSON object:
for each way, the photos per second, whether the two answers are equal, and memory, files and threads after the first
quarter: their slope for 1,000 photos, and the medians of the second and of the last quarter.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from benchmarks.process_watch import Watch, growth, thinned
from benchmarks.server_load import wait_for_port
from PIL import Image

from deop.zoo import NANO

NAMES = "cat, wall, cup, table, person, sky"
EXAMPLES = Path(__file__).parents[1] / "examples"
FORMATS = {"jpg": {"quality": 85}, "png": {"compress_level": 1}, "webp": {"quality": 80, "method": 0}}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)}; all if none is given")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--longest", type=int, default=800, help="pixels of the longest side")
    parser.add_argument("--short-side", type=int, default=160, help="pixels that the model scales photos to")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ways = arguments.ways or list(WAYS)
    if unknown := set(ways) - set(WAYS):
        parser.error(f"unknown way {', '.join(sorted(unknown))}: choose from {', '.join(WAYS)}")
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder) / "photos", arguments.photos, arguments.longest)
        model = write_model(Path(folder) / "nano", arguments.short_side)
        report = {way: WAYS[way](photos, model, Path(folder)) for way in ways}
    settings = {"photos": arguments.photos, "longest_side": arguments.longest, "short_side": arguments.short_side}
    text = json.dumps({**settings, "load_of_the_machine": os.getloadavg(), **report}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


def write_model(folder: Path, short_side: int) -> Path:
    """The folder of ``nano`` with another resize."""
    shutil.copytree(NANO, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["settings"]["resize"]["short_side"] = short_side
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_photos(folder: Path, count: int, longest: int) -> list[Path]:
    """Files of photos; the last one is a copy of the first."""
    folder.mkdir()
    random = np.random.default_rng(0)
    originals = [Image.open(file).convert("RGB") for file in sorted(EXAMPLES.glob("*.[jp][pn]g"))]
    paths = []
    for number in range(count - 1):
        image = originals[number % len(originals)]
        width, height = (max(1, round(random.uniform(0.2, 1) * side)) for side in image.size)
        left, top = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
        longer = np.exp(random.uniform(np.log(16), np.log(longest)))
        size = (round(longer), round(longer * random.uniform(1 / 3, 1)))[:: random.choice((-1, 1))]
        part = image.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        suffix = list(FORMATS)[number % len(FORMATS)]
        paths.append(folder / f"{number:06d}.{suffix}")
        part.save(paths[-1], **FORMATS[suffix])
    last = folder / f"{count - 1:06d}{paths[0].suffix}"
    last.write_bytes(paths[0].read_bytes())
    return [*paths, last]


def report_of(watch: Watch, count: int, seconds: float, answers: list[Any]) -> dict[str, Any]:
    """What one way has done."""
    assert len(answers) == 2
    return {
        "photos_per_second": round(count / seconds, 2),
        "last_answer_equals_the_first": answers[0] == answers[1],
        **growth(watch.samples, per="done", unit=1000),
        "samples": thinned(watch.samples),
    }


def _stream(paths: list[str], folder: str, connection: Any) -> None:
    import deop
    from deop.batch import segment_stream

    model = deop.load(folder, engine="onnx", device="cpu", threads=1)
    for number, result in enumerate(segment_stream(model, paths, NAMES)):
        if isinstance(result, Exception):
            raise result
        answer = json.dumps(result.summary(rle=True)["segments"]) if number in (0, len(paths) - 1) else None
        connection.send(answer)
    connection.close()


def stream(photos: list[Path], model: Path, _: Path) -> dict[str, Any]:
    """``segment_stream`` in one process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_stream, args=([str(path) for path in photos], str(model), theirs))
    child.start()
    theirs.close()
    answers, begin = [], 0.0
    assert child.pid is not None
    with Watch(child.pid, every=1) as watch:
        for number in range(len(photos)):
            answer = ours.recv()
            begin = begin or time.monotonic()
            watch.done = number + 1
            answers += [answer] if answer is not None else []
        seconds = time.monotonic() - begin
    child.join()
    return report_of(watch, len(photos), seconds, answers)


def server(photos: list[Path], model: Path, _: Path) -> dict[str, Any]:
    """``deop serve`` with one worker, asked about one photo after the other."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "deop", "serve", "--port", "0", "--threads", "1", "--model", str(model)]
        child = subprocess.Popen(command, stderr=log)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", wait_for_port(child, log), timeout=300)
            answers, begin = [], time.monotonic()
            with Watch(child.pid, every=1) as watch:
                for number, path in enumerate(photos):
                    connection.request("POST", f"/v1/segment?names={quote(NAMES)}", path.read_bytes())
                    response = connection.getresponse()
                    body = response.read()
                    if response.status != 200:
                        raise SystemExit(f"{path.name}: {response.status} {body.decode()}")
                    watch.done = number + 1
                    answers += [json.loads(body)["segments"]] if number in (0, len(photos) - 1) else []
                seconds = time.monotonic() - begin
            connection.close()
        finally:
            child.terminate()
            child.wait()
    return report_of(watch, len(photos), seconds, answers)


def batch(photos: list[Path], model: Path, folder: Path) -> dict[str, Any]:
    """``deop batch`` with one worker, which is not replaced."""
    import pyarrow.parquet as pq

    output = folder / "batch"
    context = multiprocessing.get_context("spawn")
    done = context.Value("l", 0)
    child = context.Process(target=_batch, args=(str(photos[0].parent), str(model), str(output), done))
    begin = time.monotonic()
    child.start()
    assert child.pid is not None
    with Watch(child.pid, every=1) as watch:
        while child.is_alive():
            watch.done = done.value
            begin = begin if done.value else time.monotonic()
            child.join(0.2)
        seconds = time.monotonic() - begin
    if child.exitcode:
        raise SystemExit(f"the batch has ended with {child.exitcode}")
    rows = {row["id"]: row for file in sorted(output.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()}
    assert len(rows) == len(photos)
    varying = ("id", "seconds", "path", "file")
    answers = [
        {key: value for key, value in rows[path.name].items() if key not in varying} for path in (photos[0], photos[-1])
    ]
    watch.samples = [entry for entry in watch.samples if entry.done]
    return report_of(watch, len(photos), seconds, answers)


def _batch(photos: str, model: str, output: str, done: Any) -> None:
    from deop.batch import BatchOptions, WorkerOptions, run_batch

    def report(progress: Any) -> None:
        done.value = progress.inputs

    worker = WorkerOptions(model=model, names=NAMES, load={"engine": "onnx", "device": "cpu", "threads": 1})
    run_batch(BatchOptions(photos, output, worker=worker, workers=1, recycle=1 << 30), report)


WAYS: dict[str, Callable[[list[Path], Path, Path], dict[str, Any]]] = {
    "stream": stream,
    "server": server,
    "batch": batch,
}

if __name__ == "__main__":
    os.environ.setdefault("DEOP_CACHE", "off")
    main()
