"""Measures deop on a GPU: images per second, stages, share of the peak, two streams, CUDA graphs, transfers, waits.

    python benchmarks/gpu.py                       # all parts, at most eight minutes; writes gpu.json
    python benchmarks/gpu.py pass encoder          # some parts
    python benchmarks/gpu.py --tiny --device cpu   # checks that it works, in half a minute; the figures mean nothing

Models have the published sizes and random weights. Durations are medians between CUDA events, and the cases that are
compared alternate. Parts run in order of importance and are skipped if too little time remains. The JSON file is
written after each row.
"""

import argparse
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_benchmark.fixed_pass import Scale
from gpu_benchmark.networks import measure_compiled, measure_encoder, measure_peak, measure_proposer
from gpu_benchmark.package import measure_nano, measure_package, measure_waits
from gpu_benchmark.report import Report, Row, gpu_environment
from gpu_benchmark.session import GOALS, Session
from gpu_benchmark.timing import TimeLimit
from gpu_benchmark.transfers import measure_transfers
from gpu_benchmark.whole_pass import measure_kernels, measure_large, measure_pass, measure_two_stream

PARTS: dict[str, tuple[Callable[[Session], Iterator[Row]], float, str]] = {
    "peak": (measure_peak, 3, "The machine's peak"),
    "encoder": (measure_encoder, 8, "B/16 at 512: the encoder with a gate in its last block"),
    "pass": (measure_pass, 12, "B/16 at 512, R50, 100 masks: from photos to label maps on the device"),
    "waits": (measure_waits, 6, "Where the host waits for the device"),
    "two-stream": (measure_two_stream, 8, "The classification stage with 100 masks: one pass and two streams"),
    "kernels": (measure_kernels, 10, "The kernels of a pass"),
    "transfers": (measure_transfers, 7, "Photos from the host's memory, label maps to it"),
    "package": (measure_package, 8, "DeOP.segment: from photos in the host's memory to Segmentation"),
    "large": (measure_large, 12, "L/14 at 448, R50, 100 masks"),
    "nano": (measure_nano, 7, "nano at 512"),
    "compiled": (measure_compiled, 30, "torch.compile: the blocks of B/16's encoder"),
    "proposer": (measure_proposer, 8, "Variants of the R50 proposer"),
}
"""Function of each part, the seconds that must remain to start it, and its title."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"parts to run, of {', '.join(PARTS)}; default: all")
    parser.add_argument("--seconds", type=float, default=480, help="time limit (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="file to write (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="device to measure (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--seed", type=int, default=0, help="random seed of the weights (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="tiny models and photos, to check that everything works")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"unknown parts {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this machine has no GPU: --tiny --device cpu checks that the benchmark works")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    limit = TimeLimit(arguments.seconds)
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    torch.backends.cudnn.benchmark = True  # sizes are fixed, so cuDNN chooses its algorithms once
    report = Report(arguments.json, limit, gpu_environment(device, dtype, arguments.seed))
    print(" | ".join(f"{key} {value}" for key, value in report.results["environment"].items()), "\n", flush=True)
    for name, (bound, minimum) in GOALS.items():
        report.set_goal(name, None, bound, minimum=minimum)
    scale = Scale(tiny=True, masks=5, names=3, batches=(1, 2)) if arguments.tiny else Scale()
    session = Session(scale, device, dtype, arguments.seed)
    timer = threading.Timer(limit.remaining, lambda: finish(report, session))
    timer.daemon = True
    timer.start()  # ends the run even while a part is waiting, for example for a compiler
    for key, (measure, required, title) in PARTS.items():
        if not arguments.parts or key in arguments.parts or key == "peak":  # other parts refer to the peak
            report.run_part(key, title, partial(measure, session), 1 if arguments.tiny else required)
    timer.cancel()
    finish(report, session)


def finish(report: Report, session: Session) -> None:
    """Compare the figures with the goals, write the report, and exit at once, without waiting for other processes."""
    try:
        for name, (bound, minimum) in GOALS.items():
            value, source = (None, "") if session.scale.tiny else session.best.get(name, (None, ""))
            report.set_goal(name, value, bound, minimum=minimum, source=source)
        report.print_interrupted()
        report.print_goals()
        print(f"{report.limit.elapsed:.0f} s; {report.path}", flush=True)
        report.save()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
