"""How much slower a photo becomes when other programs keep the processor busy, by number of threads and wait policy.

    python benchmarks/threads_under_load.py --repeats 10 --size 128

OpenMP, which divides torch's loops among threads, lets a thread that waits for the others spin by default. Where
another program needs the cores, that takes time from the very threads that are waited for. The ``deop``
command therefore limits spinning before torch is imported (``deop.networks.threads``).

Each setting is a process of its own, which segments one photo whenever it is asked to. The settings take turns, in
alternating order, without and with ``--busy`` busy processes, so that whatever else runs on the machine affects all of
them alike. The share of the processor that other programs used meanwhile is measured and printed: "quiet" is only as
quiet as that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from deop.networks.threads import limit_spinning

OMP_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS")

WORKER = """
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other process, and this one with it
import numpy as np, torch
model, threads, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if threads:
    torch.set_num_threads(threads)
generator = np.random.default_rng(0)
if model == "nano":
    import deop
    network = deop.load("nano", engine="torch", device="cpu")
    small = generator.integers(0, 256, (size // 32, size // 32, 3), dtype=np.uint8)
    photo = np.kron(small, np.ones((32, 32, 1), np.uint8))
    run = lambda: network.segment(photo, ["cat", "sofa", "wall", "tree", "sky"])
else:
    from deop.encoders.clip import CLIPVision, VisionConfig
    encoder, pixels = CLIPVision(VisionConfig()).eval(), torch.randn(1, 3, size, size)
    def run():
        with torch.inference_mode():
            encoder(pixels)
for _ in range(2):
    run()
print(torch.get_num_threads(), flush=True)
for _ in sys.stdin:
    start, used = time.perf_counter(), time.process_time()
    run()
    print(json.dumps([time.perf_counter() - start, time.process_time() - used]), flush=True)
"""


@dataclass
class Setting:
    """One number of threads and wait policy, and what it took.

    Attributes:
        name: row of the table.
        threads: number of threads; 0: torch's default.
        variables: environment variables of OpenMP.
        seconds: seconds of a photo, by whether the busy processes were running.
        others: share of the processor that other programs used meanwhile, by the same.
    """

    name: str
    threads: int
    variables: dict[str, str]
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    others: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})

    def start(self, model: str, size: int) -> None:
        """Start the process of this setting, and wait until it is ready."""
        environment = {key: value for key, value in os.environ.items() if key not in OMP_VARIABLES} | self.variables
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, model, str(self.threads), str(size)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        assert self.process.stdout is not None
        self.actual_threads = int(self.process.stdout.readline())

    def measure(self, loaded: bool) -> None:
        """Let the process segment the photo once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        total, idle = processor_time()
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        seconds, used = json.loads(self.process.stdout.readline())
        total_after, idle_after = processor_time()
        spent = max(total_after - total, 1e-9)
        self.seconds[loaded].append(seconds)
        self.others[loaded].append(max(0.0, (spent - (idle_after - idle) - used) / spent))

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure_all(settings: list[Setting], repeat: int, busy: int) -> None:
    """Measure every setting once without and once with the busy processes."""
    for loaded in (False, True) if repeat % 2 else (True, False):
        spin = [sys.executable, "-c", "while True: pass"]
        spinning = [subprocess.Popen(spin) for _ in range(busy if loaded else 0)]
        time.sleep(0.3)
        try:
            for setting in settings if repeat % 2 else reversed(settings):
                setting.measure(loaded)
        finally:
            for process in spinning:
                process.kill()
                process.wait()


def processor_time() -> tuple[float, float]:
    """Seconds that all cores together have passed, and have been idle, since the start (Linux)."""
    try:
        with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
            values = [int(value) for value in file.readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(values) / ticks, (values[3] + values[4]) / ticks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("nano", "encoder"), default="nano", help="nano, or the encoder B/16 alone")
    parser.add_argument("--size", type=int, default=512, help="side of the photo in pixels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="number of busy processes")
    parser.add_argument("--json", help="write all seconds to this file")
    arguments = parser.parse_args()

    limits: dict[str, str] = {}
    limit_spinning(limits)
    settings = [
        Setting("all threads, spinning (OpenMP's default)", 0, {}),
        Setting("all threads, as the deop command", 0, limits),
        Setting("all threads, never spinning", 0, {"OMP_WAIT_POLICY": "PASSIVE"}),
        Setting("one thread", 1, {}),
    ]
    for setting in settings:
        setting.start(arguments.model, arguments.size)
    try:
        for repeat in range(arguments.repeats):
            measure_all(settings, repeat, arguments.busy)
    except KeyboardInterrupt:
        print("interrupted: only complete repeats are counted")
    for setting in settings:
        setting.stop()
    repeats = min(len(seconds) for setting in settings for seconds in setting.seconds.values())
    if repeats == 0:
        return

    reference = min(settings[0].seconds[False])
    print(f"{arguments.model}, {arguments.size} px, {repeats} repeats, {arguments.busy} busy processes,")
    print(f"{os.cpu_count()} cores. Medians; others: share of the processor that other programs used meanwhile.\n")
    print("| setting | threads | quiet | others | loaded | others | loaded / quiet | fastest | relative to the first |")
    print("|---|---|---|---|---|---|---|---|---|")
    for setting in settings:
        quiet, loaded = (statistics.median(setting.seconds[state]) for state in (False, True))
        fastest = min(setting.seconds[False])
        others = [statistics.median(setting.others[state]) for state in (False, True)]
        print(
            f"| {setting.name} | {setting.actual_threads} | {quiet:.3f} s | {others[0]:.0%} | {loaded:.3f} s | "
            f"{others[1]:.0%} | {loaded / quiet:.1f} | {fastest:.3f} s | {fastest / reference:.2f} |"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump([{"name": one.name, "seconds": one.seconds, "others": one.others} for one in settings], file)


if __name__ == "__main__":
    main()
