"""How much slower a photo becomes when other programs keep the processor busy, by number of threads and wait policy.

    python benchmarks/threads_under_load.py --repeats 10 --size 128

Threads of ONNX Runtime and of OpenMP, which divides loops of torch, spin by default while they wait for others. Where
another program needs the cores, that takes time from the very threads that are waited for. deop therefore limits
spinning: always in ONNX Runtime, and in torch where the ``deop`` command starts it (``deop.networks.threads``).

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

from deop.networks.threads import limit_numpy_threads, limit_spinning

VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
)  # fmt: skip
GOAL = 2.5
"""Maximum ratio of the time with a busy process on each core to that on a quiet machine, as the deop command runs."""


WORKER = """
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other process, and this one with it
import numpy as np
subject, threads, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
generator = np.random.default_rng(0)
if subject == "encoder":
    import torch
    from deop.encoders.clip import CLIPVision, VisionConfig
    torch.set_num_threads(threads or torch.get_num_threads())
    encoder, pixels = CLIPVision(VisionConfig()).eval(), torch.randn(1, 3, size, size)
    def run():
        with torch.inference_mode():
            encoder(pixels)
else:
    import deop
    network = deop.load("nano", engine=subject, device="cpu", threads=threads or None)
    small = generator.integers(0, 256, (size // 32, size // 32, 3), dtype=np.uint8)
    photo = np.kron(small, np.ones((32, 32, 1), np.uint8))
    run = lambda: network.segment(photo, ["cat", "sofa", "wall", "tree", "sky"])
for _ in range(2):
    run()
print("ready", flush=True)
for _ in sys.stdin:
    start, used = time.perf_counter(), time.process_time()
    run()
    print(json.dumps([time.perf_counter() - start, time.process_time() - used]), flush=True)
"""


@dataclass
class Setting:
    """One engine, number of threads and wait policy, and what it took.

    Attributes:
        name: row of the table.
        subject: what runs: "onnx" or "torch" (nano in this engine), or "encoder".
        threads: number of threads; 0: the default.
        variables: environment variables about threads.
        seconds: seconds of a photo, by whether the busy processes were running.
        others: share of the processor that other programs used meanwhile, by the same.
    """

    name: str
    subject: str
    threads: int
    variables: dict[str, str]
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    others: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})

    def start(self, size: int) -> None:
        """Start the process of this setting, and wait until it is ready."""
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | self.variables
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, self.subject, str(self.threads), str(size)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"the process of {self.name!r} has ended, see above")

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
    parser.add_argument(
        "--model", choices=("nano", "encoder"), default="nano", help="nano, or the encoder B/16 in torch"
    )
    parser.add_argument("--size", type=int, default=512, help="side of the photo in pixels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="number of busy processes")
    parser.add_argument("--json", help="write all seconds to this file")
    arguments = parser.parse_args()

    limits: dict[str, str] = {}
    limit_spinning(limits)
    limit_numpy_threads(limits)
    settings = []
    for subject in ("onnx", "torch") if arguments.model == "nano" else ("encoder",):
        settings += [
            Setting(f"{subject}, as the deop command", subject, 0, limits),
            Setting(f"{subject}, no variable is set", subject, 0, {}),
            Setting(f"{subject}, never spinning", subject, 0, {**limits, "OMP_WAIT_POLICY": "PASSIVE"}),
            Setting(f"{subject}, one thread", subject, 1, limits),
        ]
    for setting in settings:
        setting.start(arguments.size)
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

    print(f"{arguments.model}, {arguments.size} px, {repeats} repeats, {arguments.busy} busy processes,")
    print(f"{os.cpu_count()} cores. Medians; others: share of the processor that other programs used meanwhile.\n")
    print("| setting | quiet | others | loaded | others | loaded / quiet | fastest, quiet |")
    print("|---|---|---|---|---|---|---|")
    for setting in settings:
        quiet, loaded = (statistics.median(setting.seconds[state]) for state in (False, True))
        others = [statistics.median(setting.others[state]) for state in (False, True)]
        judged = setting.variables == limits and not setting.threads
        goal = f" (goal: {GOAL}, {'met' if loaded / quiet <= GOAL else 'missed'})" if judged else ""
        print(
            f"| {setting.name} | {quiet:.3f} s | {others[0]:.0%} | {loaded:.3f} s | {others[1]:.0%} | "
            f"{loaded / quiet:.1f}{goal} | {min(setting.seconds[False]):.3f} s |"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump([{"name": one.name, "seconds": one.seconds, "others": one.others} for one in settings], file)


if __name__ == "__main__":
    main()
