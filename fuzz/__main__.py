"""``python -m fuzz``: run the targets one after another, and say how many inputs each has tried."""

import argparse
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.target import HANG_LIMIT, LONGEST_INPUT, MEMORY_LIMIT, check
from fuzz.targets import NAMES, load

_TRIED = re.compile(r"^(?:#|stat::number_of_executed_units: )(\d+)", re.MULTILINE)


@dataclass
class Outcome:
    """What came of one target.

    Attributes:
        target: its name.
        tried: number of inputs.
        seconds: how long it ran, the start of the process not counted.
        found: lines about what breaks the contract.
    """

    target: str
    tried: int
    seconds: float
    found: list[str]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    parser.add_argument("--target", action="append", choices=NAMES, help="one of the targets; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="of the changes (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="inputs that break the contract (.fuzz)")
    parser.add_argument("--corpus", type=Path, help="keep inputs that reach new lines here, and begin with them")
    parser.add_argument("--repeat", type=Path, help="check one input again; its folder is the name of the target")
    return parser.parse_args()


def write_seeds(seeds: Iterable[bytes], folder: Path) -> int:
    """Write the seeds of a target, each once. Returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if len(seed) <= LONGEST_INPUT:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return len(list(folder.iterdir()))


def run(name: str, seconds: float, seed: int, found: Path, corpus: Path) -> Outcome:
    """Run a target. Where libFuzzer ends the process (a hang, too much memory, a crash), that input is kept."""
    place = found / name
    place.mkdir(parents=True, exist_ok=True)
    before = set(place.iterdir())
    flags = {
        "seed": seed, "max_total_time": max(1, round(seconds)), "timeout": HANG_LIMIT, "rss_limit_mb": MEMORY_LIMIT,
        "max_len": LONGEST_INPUT, "artifact_prefix": f"{place}/", "print_final_stats": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "fuzz.process", name, str(found), str(corpus)]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *(f"-{flag}={value}" for flag, value in flags.items())],
        capture_output=True, text=True, errors="replace", check=False, timeout=seconds + 20 * HANG_LIMIT,
    )  # fmt: skip
    output = done.stdout + done.stderr
    lines = [line for line in output.splitlines() if line.startswith("found: ")]
    kept = set(place.iterdir()) - before
    lines += [f"found: {path.name.split('-')[0]}: {path}" for path in kept if "-" in path.name]
    if done.returncode and not lines:
        lines.append(f"found: exit code {done.returncode}: {output[-2000:]}")
    tried = max(map(int, _TRIED.findall(output)), default=0)
    return Outcome(name, tried, time.monotonic() - start, lines)


def repeat(path: Path) -> int:
    """Check one input again, and show the traceback. Returns the exit code."""
    import traceback

    target = load(path.resolve().parent.name)
    with TemporaryDirectory(prefix="deop-fuzz-") as folder:
        error = check(target, path.read_bytes(), Path(folder))
    if error is None:
        print(f"{path}: as documented")
        return 0
    traceback.print_exception(error)
    return 1


def main() -> int:
    """Run the command. Returns the exit code."""
    options = arguments()
    if options.repeat:
        return repeat(options.repeat)
    names = options.target or NAMES
    total, broken = 0, 0
    with TemporaryDirectory(prefix="deop-seeds-") as temporary:
        for name in names:
            corpus = (options.corpus or Path(temporary)) / name
            seeds = write_seeds(load(name).seeds(), corpus)
            outcome = run(name, options.seconds / len(names), options.seed, options.folder.resolve(), corpus)
            total, broken = total + outcome.tried, broken + len(outcome.found)
            print(f"{name}: {outcome.tried:,} inputs from {seeds} seeds in {outcome.seconds:.0f} s", flush=True)
            for line in outcome.found:
                print(f"  {line}", flush=True)
                if path := re.search(r": (\S+)$", line):
                    print(f"    repeat it with: {sys.executable} -m fuzz --repeat {path[1]}", flush=True)
    print(f"{total:,} inputs of {len(names)} targets; {broken} broke the contract")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
