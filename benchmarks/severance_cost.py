"""Time and memory of training-free severances, windows and region tokens in random towers on the CPU.

    python benchmarks/severance_cost.py time                        # ViT-B/16 at 512 x 512, 100 masks
    python benchmarks/severance_cost.py time --repeats 8 --cases windows --sizes 512,768,1024
    python benchmarks/severance_cost.py goals                       # the two ratios that deop promises
    python benchmarks/severance_cost.py memory                      # two blocks of ViT-L/14 at 1,024 x 1,024
    python benchmarks/severance_cost.py memory --tower b16 --cases windows --sizes 512,768,1024

Time is CPU time of one thread, which other processes on the machine disturb less than elapsed time. The cases take
turns, in both orders, and each is compared with the unsevered pass of its own turn. Memory is the peak of a process of
its own, above that of a process that encodes without severance.
"""

import resource
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any, Literal

import typer

DEFAULT = "region:similarity=k:residual=0:mlp=no"
"""The severance of CLIP towers that were not trained for one."""
SEVERANCES = (
    "none", "self:residual=0.2:mlp=yes", "self:residual=0:mlp=no", "corrclip", DEFAULT,
    "region:similarity=qk:residual=0:mlp=no", "sclip", "clearclip", "naclip",
)  # fmt: skip
WINDOWS = ("224:112", "336:224")
LEVELS = f"{DEFAULT}:levels=5/6/7/8/9"
GOALS = {
    "self:residual=0:mlp=no": (1.03, None), DEFAULT: (None, 1.10), "region:similarity=k": (None, 1.10),
    "region:similarity=qk": (None, 1.10),
}  # fmt: skip
"""Least speed and largest time, relative to the unsevered pass, of B/16 at 512 x 512."""

Cases = Literal["severances", "windows"]
Repeats = Annotated[int, typer.Option(help="Turns.")]
Sizes = Annotated[str, typer.Option(help="Sides of the photo in pixels, separated by commas.")]
Masks = Annotated[int, typer.Option(help="Number of masks.")]
Which = Annotated[Cases, typer.Option(help="severances; or windows, region tokens and levels with the default.")]
app = typer.Typer(add_completion=False)


def cases_of(which: Cases) -> dict[str, dict[str, Any]]:
    """Name of each case -> arguments of the tower, with the severance as text; the first one is unsevered."""
    if which == "severances":
        return {name: {"severance": name} for name in SEVERANCES}
    return {
        "none": {"severance": "none"},
        "default": {"severance": DEFAULT},
        "default, region tokens": {"severance": DEFAULT, "region_tokens": True},
        "default, levels 5 to 9": {"severance": LEVELS},
        **{
            f"default, windows {text}": {"severance": DEFAULT, "windows": tuple(map(int, text.split(":")))}
            for text in WINDOWS
        },
    }


def _arguments(case: dict[str, Any]) -> dict[str, Any]:
    from deop.severance import Severance

    return case | {"severance": Severance.parse(case["severance"])}


def _inputs(size: int, masks: int) -> tuple[Any, Any]:
    import torch

    return torch.randn(1, 3, size, size), 4 * torch.randn(1, masks, size // 4, size // 4) - 4


def _tower(name: str) -> Any:
    """A random tower: ViT-B/16, or two blocks as wide as those of ViT-L/14."""
    import torch

    from deop.encoders.clip import CLIPVision, VisionConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = VisionConfig() if name == "b16" else VisionConfig(1024, 2, 16, 4096, 14, 24, 768)
    return CLIPVision(config).eval()


def take_turns(cases: dict[str, dict[str, Any]], tower: Any, size: int, masks: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of each turn of each case."""
    import torch

    inputs, runs = _inputs(size, masks), {name: _arguments(case) for name, case in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        tower(*inputs, **runs["none"])  # memory of the first pass is not yet the process's
        for turn in range(repeats):
            for name in list(runs) if turn % 2 else reversed(runs):
                started = time.process_time()
                tower(*inputs, **runs[name])
                seconds[name].append(time.process_time() - started)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """How many times as fast as "none" each case is: median and quartiles over the turns."""
    result = {}
    for name, measured in seconds.items():
        each = sorted(none / one for none, one in zip(seconds["none"], measured, strict=True))
        quartiles = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
        result[name] = (statistics.median(each), quartiles[0], quartiles[2])
    return result


@app.command("time")
def measure_time(repeats: Repeats = 20, sizes: Sizes = "512", masks: Masks = 100, cases: Which = "severances") -> None:
    """Print CPU time of ViT-B/16, and how many times as fast as no severance each case is."""
    tower, chosen = _tower("b16"), cases_of(cases)
    for size in map(int, sizes.split(",")):
        seconds = take_turns(chosen, tower, size, masks, repeats)
        print(f"\n{f'{size} x {size}, {masks} masks, {repeats} turns':42}     ms  times as fast as none (quartiles)")
        for name, (middle, low, high) in ratios(seconds).items():
            spent = 1000 * statistics.median(seconds[name])
            print(f"{name:42} {spent:6.0f}  {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


@app.command("goals")
def measure_goals(repeats: Repeats = 40, masks: Masks = 100) -> None:
    """Compare ViT-B/16 at 512 x 512 with the goals; the exit code is 1 if one is missed."""
    names = ("none", *GOALS)
    measured = ratios(take_turns({name: {"severance": name} for name in names}, _tower("b16"), 512, masks, repeats))
    missed = False
    for name, (least, longest) in GOALS.items():
        middle, low, high = measured[name]
        if least is not None:
            reached, goal = middle >= least, f"{middle:.3f} times as fast as none, goal at least {least}"
        else:
            assert longest is not None
            reached, goal = 1 / middle <= longest, f"{1 / middle:.3f} times the time of none, goal at most {longest}"
        missed |= not reached
        print(
            f"{name:42} {'reached' if reached else 'MISSED'}: {goal} (quartiles of the speed {low:.3f} to {high:.3f})"
        )
    raise typer.Exit(int(missed))


@app.command("memory")
def measure_memory(
    sizes: Sizes = "1024",
    masks: Masks = 100,
    tower: Annotated[Literal["b16", "l14"], typer.Option(help="ViT-B/16, or two blocks of ViT-L/14.")] = "l14",
    cases: Which = "severances",
) -> None:
    """Print the peak memory of each case above that of no severance."""
    for size in map(int, sizes.split(",")):
        peaks: dict[str, int] = {}
        print(f"\n{size} x {size}, {masks} masks, {tower}")
        for name in cases_of(cases):
            command = [sys.executable, __file__, "peak", cases, name, str(size), str(masks), tower]
            peaks[name] = int(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
            print(f"{name:42} {(peaks[name] - peaks['none']) / 1024:+6.0f} MiB", flush=True)


@app.command("peak", hidden=True)
def peak(cases: Cases, name: str, size: int, masks: int, tower: str) -> None:
    """Print the peak memory of this process in KiB after one pass."""
    import torch

    network, inputs = _tower(tower), _inputs(size, masks)
    with torch.inference_mode():
        network(*inputs, **_arguments(cases_of(cases)[name]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    app()
