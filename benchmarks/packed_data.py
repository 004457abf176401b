"""How fast labelled photos are read in random order from a folder, Parquet files and tar files, and in what memory.

    python benchmarks/packed_data.py ../shared/data/coco-mini --split train --repeat 20

The data is packed into a temporary directory. Each form is read in a process of its own: photos in random order, each
with its mask.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deop.data import pack as packing
from deop.data.source import open_data
from deop.images.id_maps import read_id_map
from deop.images.reading import read_photo


def measure(place: str, split: str | None, reads: int) -> dict[str, float]:
    """Milliseconds to read and to decode a photo and its mask, means, and the peak memory of this process in MB."""
    data = open_data(place, split, skip_unpaired=True)
    before, times = peak(), []
    for number in np.random.default_rng(0).integers(len(data.pairs), size=reads):
        pair = data.pairs[number]
        started = time.perf_counter()
        photo, mask = (
            entry.read_bytes() if isinstance(entry, Path) else entry.read() for entry in (pair.photo, pair.mask)
        )
        middle = time.perf_counter()
        read_photo(photo)
        read_id_map(mask)
        times.append((middle - started, time.perf_counter() - middle))
    read, decode = 1000 * np.mean(times, axis=0)
    return {"read": read, "decode": decode, "before": before, "after": peak()}


def peak() -> float:
    """The peak memory of this process in MB, on Linux."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Pack the data, measure each form in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a labelled folder")
    parser.add_argument("--split", help="the split (default: val, if the folder has splits)")
    parser.add_argument("--reads", type=int, default=200, help="number of photos to read (default: 200)")
    parser.add_argument("--repeat", type=int, default=1, help="how often each photo is packed (default: 1)")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # a form that was packed, for the process that measures it
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.split, options.reads)))
        return
    with TemporaryDirectory() as name:
        folder, data = Path(name), open_data(options.folder, options.split, skip_unpaired=True)
        places = {"folder": options.folder, "tar": str(folder / "x.tar")}
        data = replace(data, pairs=data.pairs * options.repeat)
        packing.pack(data, places["tar"])
        for megabytes in (1, 64):
            packing.GROUP_BYTES = megabytes << 20
            place = folder / f"{megabytes}.parquet"
            packing.pack(data, place)
            places[f"Parquet, row groups of up to {megabytes} MiB"] = str(place)
        print(f"{len(data.pairs):,} photos, {options.reads} reads in random order")
        for form, place in places.items():
            split = ["--split", options.split] if options.split and form == "folder" else []
            command = [sys.executable, __file__, options.folder, "--only", place, "--reads", str(options.reads), *split]
            values = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
            )
            memory = f"{values['before']:.0f} to {values['after']:.0f} MB"
            print(f"{form:40} read {values['read']:6.2f} ms   decode {values['decode']:5.1f} ms   peak memory {memory}")


if __name__ == "__main__":
    main()
