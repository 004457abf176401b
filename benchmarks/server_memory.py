"""Memory of `deop serve`, by the size of the photo: its two processes, and what an encoded photo keeps.

    python -m benchmarks.server_memory [--megapixels 1 12 48 100]

For each size, starts a server on a free port of this machine, asks it for names in one photo of noise without an edge
(JPEG), and encodes it. Prints a table: the largest resident memory of the process that answers and of the worker, and
the memory of the encoded photo. Linux only. Further options are those of `deop serve`.
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np
from benchmarks.server_load import wait_for_port
from PIL import Image

NAMES = "cat, wall, cup, table, person, sky"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 12, 48, 100])
    arguments, server = parser.parse_known_args()
    print("| photo | process that answers | worker | encoded photo |\n|---|---|---|---|")
    for megapixels in arguments.megapixels:
        front, worker, encoded = measure(photo_of(megapixels), server)
        print(f"| {megapixels:g} megapixels | {front:.0f} MB | {worker:.0f} MB | {encoded:.0f} MB |", flush=True)


def photo_of(megapixels: float) -> bytes:
    """A JPEG of this size: smooth noise, 4 : 3."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((height * 4 // 3, height), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def measure(photo: bytes, options: list[str]) -> tuple[float, float, float]:
    """Megabytes: the most of the process that answers, the most of its worker, and the encoded photo."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "deop", "serve", "--port", "0", "--max-seconds", "600", *options], stderr=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{wait_for_port(child, log)}", timeout=300) as client:
                client.post("/v1/segment", params={"names": NAMES}, content=photo).raise_for_status()
                client.post("/v1/encode", content=photo).raise_for_status()
                kept = re.search(r'^deop_cached_bytes\{worker="0"\} (.*)$', client.get("/metrics").text, re.MULTILINE)
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="utf-8").split()
            worker = max(most_memory(int(process)) for process in children)
            return most_memory(child.pid), worker, float(kept[1]) / 1e6 if kept else 0.0
        finally:
            child.terminate()
            child.wait()


def most_memory(process: int) -> float:
    """The largest resident memory that a process has had, megabytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    line = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(line[1]) * 1024 / 1e6 if line else 0.0


if __name__ == "__main__":
    main()
