"""Size and time of an installation, and the cold start of the command in it: the base install and ``deop[torch]``.

Makes a fresh environment for each, with pip's cache switched off, so the time includes downloads:

    python benchmarks/install_size.py --json install.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "chelsea.png"
EXTRAS = {"base": "", "torch": "[torch]"}
COMMAND = ("segment", str(PHOTO), "--classes", "cat, background")


def megabytes(folder: Path) -> float:
    """Size of the files in a folder in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def measure(extra: str, repeats: int, pip: list[str]) -> dict[str, float]:
    """Install into a fresh environment, and run the command in it.

    Args:
        extra: as in ``EXTRAS``.
        repeats: runs of the command.
        pip: further arguments of ``pip install``.

    Returns:
        "seconds" of the installation and "processor" seconds of it, "MB" that it adds to the environment; seconds of
        the "first command", and medians of the others: "command" in seconds, "command, processor" in processor seconds,
        which other programs on the machine change less.
    """
    with TemporaryDirectory(prefix="deop-install-") as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        before = megabytes(folder / "env")
        install = [scripts / "python", "-m", "pip", "install", "-q", "--no-cache-dir", *pip, f"{ROOT}{extra}"]
        seconds, processor = run(list(map(str, install)))
        result = {"seconds": seconds, "processor": processor, "MB": megabytes(folder / "env") - before}
        words = [str(scripts / "deop"), *COMMAND, "--output", str(folder / "out.png")]
        times = [run(words) for _ in range(repeats + 1)]
        seconds, processor = (statistics.median(column) for column in zip(*times[1:], strict=True))
        return {**result, "first command": times[0][0], "command": seconds, "command, processor": processor}


def run(words: list[str]) -> tuple[float, float]:
    """Run a program; its seconds, and those of the processor."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(EXTRAS), help="measure one of them; default: both")
    parser.add_argument("--repeats", type=int, default=7, help="runs of the command; default: 7")
    parser.add_argument("--pip", action="append", default=[], metavar="ARGUMENT", help="a further argument for pip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(EXTRAS)
    results = {name: measure(EXTRAS[name], arguments.repeats, arguments.pip) for name in names}
    for name, one in results.items():
        print(f"{name}:", ", ".join(f"{key} {value:.4g}" for key, value in one.items()))
    if arguments.json:
        details = {"python": sys.version.split()[0], "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        arguments.json.write_text(json.dumps({**details, "installs": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
