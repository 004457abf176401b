"""Time and memory of training-free severances, compared with no severance, in random towers on the CPU.

    python benchmarks/severance_cost.py time --repeats 20          # ViT-B/16 at 512 x 512, 100 masks
    python benchmarks/severance_cost.py time --repeats 5 --size 768 --default
    python benchmarks/severance_cost.py memory                     # two blocks of ViT-L/14 at 1,024 x 1,024

Time is CPU time of one thread, which other processes on the machine disturb less than elapsed time. The severances take
turns, in both orders, and each is compared with the unsevered pass of its own turn. Memory is the peak of a process of
its own, above that of a process that encodes without severance.
"""

import resource
import statistics
import subprocess
import sys
import time
from typing import Annotated

import typer

NAMES = (
    "none", "self:residual=0.2:mlp=yes", "self:residual=0:mlp=no", "corrclip", "region:similarity=k:residual=0:mlp=no",
    "region:similarity=qk:residual=0:mlp=no", "sclip", "clearclip", "naclip",
)  # fmt: skip
app = typer.Typer(add_completion=False)


@app.command("time")
def measure_time(
    repeats: Annotated[int, typer.Option(help="Turns.")] = 20,
    size: Annotated[int, typer.Option(help="Side of the photo in pixels.")] = 512,
    masks: Annotated[int, typer.Option(help="Number of masks.")] = 100,
    everything: Annotated[bool, typer.Option("--all/--default", help="All severances, or the default.")] = True,
) -> None:
    """Print CPU time, and how many times as fast as no severance each one is."""
    import torch

    from deop.encoders.clip import CLIPVision, VisionConfig
    from deop.severance import Severance

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig()).eval()
    pixels, logits = torch.randn(1, 3, size, size), 4 * torch.randn(1, masks, size // 4, size // 4) - 4
    names = NAMES if everything else (NAMES[0], NAMES[4])
    runs = {name: {"severance": Severance.parse(name)} for name in names}
    default = Severance.parse(NAMES[4])
    runs["default, and region tokens"] = {"severance": default, "region_tokens": True}
    runs["default, windows 224:112"] = {"severance": default, "windows": (224, 112)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(repeats):
            for name in list(runs) if turn % 2 else reversed(runs):
                started = time.process_time()
                tower(pixels, logits, **runs[name])
                seconds[name].append(time.process_time() - started)
    print(f"{'severance':42} {'ms':>6}  times as fast as none (median of {repeats} turns)")
    for name, measured in seconds.items():
        ratio = statistics.median(none / one for none, one in zip(seconds["none"], measured, strict=True))
        print(f"{name:42} {1000 * statistics.median(measured):6.0f}  {ratio:.3f}")


@app.command("memory")
def measure_memory(
    size: Annotated[int, typer.Option(help="Side of the photo in pixels.")] = 1024,
    masks: Annotated[int, typer.Option(help="Number of masks.")] = 100,
) -> None:
    """Print the peak memory of each severance above that of no severance."""
    peaks = {}
    for name in NAMES:
        command = [sys.executable, __file__, "peak", name, str(size), str(masks)]
        peaks[name] = int(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
        print(f"{name:42} {(peaks[name] - peaks['none']) / 1024:+6.0f} MiB", flush=True)


@app.command("peak", hidden=True)
def peak(name: str, size: int, masks: int) -> None:
    """Print the peak memory of this process in KiB after one pass."""
    import torch

    from deop.encoders.clip import CLIPVision, VisionConfig
    from deop.severance import Severance

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig(1024, 2, 16, 4096, 14, 24, 768)).eval()
    pixels, logits = torch.randn(1, 3, size, size), 4 * torch.randn(1, masks, size // 4, size // 4) - 4
    with torch.inference_mode():
        tower(pixels, logits, severance=Severance.parse(name))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    app()
