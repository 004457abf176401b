"""Peak memory and time of 10,000 names on a large photo, with ONNX Runtime: ``python -m benchmarks.many_names``.

The photo is an enlarged example; the names are letters and numbers, which the text encoder reads as word pieces.
Prints seconds of each step and the peak of the process's resident memory (``ru_maxrss``), with that before the photo.
"""

import argparse
import resource
import sys
import time

import numpy as np
from PIL import Image

import deop


def peak() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", default="examples/chelsea.png")
    parser.add_argument("--side", type=int, default=4096, help="sides of the enlarged photo, pixels")
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--engine", choices=("onnx", "torch"), default="onnx")
    parser.add_argument("--mode", choices=("semantic", "panoptic"), default="semantic")
    options = parser.parse_args()
    photo = np.asarray(Image.open(options.photo).convert("RGB").resize((options.side, options.side)))
    names = [f"{word} {number}" for number in range(-(-options.names // 4)) for word in ("cat", "wall", "sofa", "tree")]
    model = deop.load("nano", engine=options.engine, device="cpu")
    print(f"{'loaded':16} {'':8} {peak():6.0f} MiB")
    started = time.perf_counter()
    vocabulary = model.vocabulary(names[: options.names])
    model.embed(vocabulary)
    print(f"{'embedded':16} {time.perf_counter() - started:6.1f} s {peak():6.0f} MiB")
    started = time.perf_counter()
    (encoded,) = model.encode([photo])
    print(f"{'encoded':16} {time.perf_counter() - started:6.1f} s {peak():6.0f} MiB")
    started = time.perf_counter()
    result = model.label(encoded, vocabulary, mode=options.mode, threshold=0)  # scores are divided among the names
    print(f"{'labelled':16} {time.perf_counter() - started:6.1f} s {peak():6.0f} MiB")
    print(f"{len(result.segments)} names of {options.names} on {options.side} x {options.side} px")


if __name__ == "__main__":
    main()
