"""How long the command takes to begin: whole processes, the interpreter's start included."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from deop.bench.report import Part, Row
from deop.bench.setup import Setup
from deop.bench.timing import take_turns


def start(setup: Setup) -> Part:
    """Help, torch's own import, and a first photo named by the small model."""
    with TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        Image.fromarray(setup.photo).save(photo)

        def run(*words: str) -> None:
            subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)

        found = take_turns(
            {
                "python": lambda: run("-c", "pass"),
                "deop --help": lambda: run("-m", "deop", "--help"),
                "import torch": lambda: run("-c", "import torch"),
                "deop segment, nano": lambda: run("-m", "deop", "segment", photo.name, "--classes", "cat, wall"),
            },
            setup.repeats,
            torch.device("cpu"),
        )
    base = found["import torch"].p50
    rows = tuple(
        Row(name, times, figures={"of import torch, ratio": times.p50 / base}) for name, times in found.items()
    )
    return Part("start", "From nothing to the end of the command", rows)
