"""The rate of ``deop batch``, with both engines, compared with the model alone.

``python -m benchmarks.batch PHOTOS --count 200 [--engines local,ray] [--workers 1,2] [--json FILE]``

For each number of workers, the pure rate is that of as many processes, each with one thread, that only encode and label
photos that they have decoded before. The rate of a batch counts from the moment when the first worker is ready to the
last file, so it includes reading, decoding, encoding rows, writing, and the start of further workers, and with Ray its
start. Memory is the largest resident set of one process, as the kernel counts it.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from itertools import cycle, islice
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

NAMES = "person, dog, cat, car, tree, grass, sky, wall, floor, table"
PURE = 24  # photos of each process that measures the pure rate, which are segmented twice
START = 600  # seconds in which all of them must have loaded the model


_barrier: Any = None  # of the processes that measure the pure rate: all begin when each has loaded its model


def _keep(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def pure(paths: list[str]) -> float:
    """Photos per second of one process, while others do the same."""
    import deop
    from deop.images.reading import read_photo

    try:
        model = deop.load("nano", engine="onnx", device="cpu", threads=1)
        vocabulary = model.vocabulary(NAMES)
        photos = [read_photo(path) for path in paths]
        model.label(model.encode(photos[:1])[0], vocabulary)
    except BaseException:
        _barrier.abort()
        raise
    _barrier.wait(START)
    started = time.perf_counter()
    for photo in photos * 2:
        model.label(model.encode([photo])[0], vocabulary)
    return 2 * len(photos) / (time.perf_counter() - started)


def pure_rate(paths: list[str], workers: int) -> float:
    """Photos per second of some processes together.

    Raises:
        Exception: that of a process; BrokenProcessPool if one has crashed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _keep, (context.Barrier(workers),)) as processes:
        rates = [processes.submit(pure, paths[:PURE]) for _ in range(workers)]
        done, _ = wait(rates, return_when=FIRST_EXCEPTION)
        errors = [error for rate in done if (error := rate.exception()) is not None]
        # A process whose barrier was broken by another one is not the cause.
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error
        return sum(rate.result() for rate in rates)


def batch_rate(source: Path, engine: str, workers: int, folder: Path) -> dict[str, Any]:
    from deop.batch import BatchOptions, WorkerOptions, run_batch

    output = folder / f"{engine}-{workers}"
    worker = WorkerOptions(names=NAMES, load={"engine": "onnx", "device": "cpu", "threads": 1})
    started = time.perf_counter()
    first: list[float] = []

    def progress(progress: Any) -> None:
        if progress.inputs and not first:
            first.append(time.perf_counter() - started)

    result = run_batch(BatchOptions(str(source), str(output), worker, workers=workers, engine=engine), progress)
    if result.statistics.failed:
        raise SystemExit(f"photos failed: {dict(result.statistics.failures)}")
    size = sum(file.stat().st_size for file in output.glob("part-*.parquet"))
    return {
        "engine": engine,
        "workers": workers,
        "photos": result.photos,
        "rate": round(result.photos / result.seconds, 3),
        "seconds_to_first_answer": round(first[0], 2),
        "seconds": round(time.perf_counter() - started, 2),
        "bytes_per_photo": round(size / max(1, result.photos)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder with .jpg files")
    parser.add_argument("--count", type=int, default=200, help="photos of each batch; those of the folder repeat")
    parser.add_argument("--engines", default="local")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.photos.rglob("*.jpg"))
    if not paths:
        parser.error(f"no .jpg files in {options.photos}")
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="deop-batch-benchmark-"))
    try:
        source = folder / "list.txt"
        source.write_text(
            "\n".join(str(Path(path).resolve()) for path in islice(cycle(paths), options.count)), encoding="utf-8"
        )
        for workers in map(int, options.workers.split(",")):
            alone = pure_rate(paths, workers)
            for engine in options.engines.split(","):
                row = batch_rate(source, engine, workers, folder)
                row["pure_rate"] = round(alone, 3)
                row["overhead"] = round(1 - row["rate"] / alone, 4)
                row["largest_worker_mib"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
                row["driver_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
                rows.append(row)
                print(json.dumps(row), flush=True)
    finally:
        shutil.rmtree(folder)
    if options.json:
        options.json.write_text(
            json.dumps({"command": "benchmarks.batch", "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
