"""How long the small model takes on two threads: a photo of 512 pixels, a wider one, and a thousand names.

python recipes/nano/timing.py
"""

import statistics
import time
import warnings

import torch

import deop

REPEATS = 9


def main() -> None:
    """Print medians; a machine that does other work makes them many times longer."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    model = deop.load("nano")
    for photo in ("examples/astronaut.jpg", "examples/chelsea.png"):
        times = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            found = model.segment(photo, "person, cat, wall")
            times.append(time.perf_counter() - start)
        height, width = found.label_map.shape
        print(f"{photo}, {width} x {height}: {1000 * statistics.median(times[1:]):.0f} ms")
    model.cache = None
    vocabulary = model.vocabulary([f"name {number} thing" for number in range(1000)])
    start = time.perf_counter()
    model.embed(vocabulary)
    print(f"1,000 names: {1000 * (time.perf_counter() - start):.0f} ms")


if __name__ == "__main__":
    main()
