"""How long a small photo takes on this CPU in float32, bfloat16 and float16.

    python benchmarks/half_on_cpu.py
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/half_on_cpu.py   # a CPU without the instructions

The three take turns in one process. The processor's seconds depend less on other programs than the elapsed ones.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import deop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 80), metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    width, height = arguments.size
    small = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    photo = np.kron(small, np.ones((8, 8, 1), np.uint8))[:height, :width]
    names = ("float32", "bfloat16", "float16")
    models = {name: deop.load("nano", engine="torch", device="cpu").to(getattr(torch, name)) for name in names}
    elapsed: dict[str, list[float]] = {name: [] for name in names}
    used: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(arguments.repeats + 1):
        for name, model in models.items():
            start, start_used = time.perf_counter(), time.process_time()
            model.segment(photo, ["cup", "table"])
            if repeat:  # the first also embeds the names
                elapsed[name].append(time.perf_counter() - start)
                used[name].append(time.process_time() - start_used)
    print(f"nano, {width} x {height} px, medians of {arguments.repeats}, {torch.get_num_threads()} threads\n")
    print("| precision | seconds | of the processor | relative |\n|---|---|---|---|")
    for name in names:
        seconds = statistics.median(used[name])
        print(
            f"| {name} | {statistics.median(elapsed[name]):.2f} s | {seconds:.2f} s | "
            f"{seconds / statistics.median(used['float32']):.1f} |"
        )


if __name__ == "__main__":
    main()
