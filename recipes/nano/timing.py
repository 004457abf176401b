"""Measure the inference time of the small model on two threads: two photos, and the embedding of 1,000 names.

python -m recipes.nano.timing
"""

import statistics
import time
import warnings

import torch

import deop

REPEATS = 9


def main() -> None:
    """Print medians. Run it on an idle machine: other work makes the times many times longer."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    model = deop.load("nano", engine="torch")
    for photo in ("examples/astronaut.jpg", "examples/chelsea.png"):
        times = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            result = model.segment(photo, "person, cat, wall")
            times.append(time.perf_counter() - start)
        assert isinstance(result, deop.Segmentation)
        height, width = result.label_map.shape
        print(f"{photo}, {width} x {height}: {1000 * statistics.median(times[1:]):.0f} ms")
    model.cache = None
    vocabulary = model.vocabulary([f"name {number} thing" for number in range(1000)])
    start = time.perf_counter()
    model.embed(vocabulary)
    print(f"1,000 names: {1000 * (time.perf_counter() - start):.0f} ms")


if __name__ == "__main__":
    main()
