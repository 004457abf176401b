"""Memory and time of a batch's driver for up to ten million inputs, without pixels: plan, resuming and manifest.

``python -m benchmarks.batch_plan [--largest 10000000] [--json FILE]``

Each size is measured in a process of its own: a list of made-up paths is read, divided and written as a plan; then half
of the files of the output are written, with rows without results. A second process resumes: it reads the index, finds
the unfinished units, and reads 100 of them. A third one writes the other files, and then the manifest, for which it
reads the end of each file. Memory is the largest resident set, before and after; for the third it includes pyarrow.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_files(folder: Path, plan: Any, first: int) -> None:
    """Write every second file of a batch, with rows without results."""
    from deop.batch.plan import part_name
    from deop.batch.table import encode

    contents = {}
    for number in range(first, len(plan), 2):
        count = plan.count(number)
        if count not in contents:
            rows = [{"id": str(place), "path": str(place), "model": "m", "settings": "s"} for place in range(count)]
            contents[count], _ = encode(rows)
        (folder / part_name(number)).write_bytes(contents[count])


def step(name: str, folder: Path) -> dict[str, Any]:
    from deop.batch.items import items_of
    from deop.batch.job import BatchResult, finish
    from deop.batch.plan import read_plan, write_plan
    from deop.batch.sources import list_units
    from deop.batch.storage import Storage

    storage = Storage(str(folder / "out"))
    storage.lock()
    before, started = memory(), time.perf_counter()
    if name == "plan":
        units = list_units(str(folder / "list.txt"), column=None, limit=None, shards=None)
        plan = write_plan(storage, units)
        seconds = time.perf_counter() - started
        row = {"step": name, "units": len(plan), "inputs": plan.inputs, "mib": memory()}
        write_files(folder / "out", plan, 0)
        storage.write("_deop/settings.json", b"{}")
    elif name == "manifest":
        plan = read_plan(storage)
        write_files(folder / "out", plan, 1)
        before, started = memory(), time.perf_counter()
        result = BatchResult(str(folder / "out"), len(plan))
        finish(storage, plan, {}, result, {})
        seconds = time.perf_counter() - started
        row = {"step": name, "units": result.shards, "inputs": result.statistics.rows}
    else:
        plan = read_plan(storage)
        unfinished = plan.unfinished()
        read = sum(sum(1 for _ in items_of(plan.unit(int(number)))) for number in unfinished[:100])
        seconds = time.perf_counter() - started
        row = {"step": name, "units": len(unfinished), "inputs": read}
    storage.unlock()
    return {"mib": memory(), **row, "seconds": round(seconds, 2), "mib_before": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", nargs=2)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step[0], Path(options.step[1]))))
        return
    rows = []
    count = 10_000
    while count <= options.largest:
        with tempfile.TemporaryDirectory(prefix="deop-batch-plan-") as name:
            folder = Path(name)
            with (folder / "list.txt").open("w", encoding="utf-8") as file:
                for number in range(count):
                    file.write(f"s3://bucket/photos/{number // 1000:06d}/photo-{number:010d}.jpg\n")
            for what in ("plan", "resume", "manifest"):
                command = [sys.executable, "-m", "benchmarks.batch_plan", "--step", what, name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
                row = {"photos": count, **json.loads(done.stdout)}
                rows.append(row)
                print(json.dumps(row), flush=True)
        count *= 10
    if options.json:
        options.json.write_text(
            json.dumps({"command": "benchmarks.batch_plan", "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
