"""``deop bench``: how fast deop is on this machine, beside two streams, CLIPSeg and the machine itself."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deop.bench import Topic
from deop.cli.console import Debug, say


class Tower(StrEnum):
    """Sizes of CLIP that are timed."""

    base = "B/16"
    large = "L/14"


def bench(
    topics: Annotated[
        list[Topic] | None, typer.Argument(metavar="[PART]...", help="What to measure; by default all.")
    ] = None,
    photo: Annotated[
        Path | None, typer.Option(help="The photo; by default a made one of 512 x 512.", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Turns of each; fewer of what takes long.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="A few small cases, to see that it works.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything here too.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; by default a GPU if any.", show_default=False)] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default float32.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the CPU; by default as many as cores.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, masks and made photos.")] = 0,
    towers: Annotated[
        list[Tower] | None, typer.Option("--tower", help="Of CLIP; by default both, L/14 takes long on a CPU.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure speed: what is compared takes turns in one process, so that ratios hold on a noisy machine.

    Prints tables, and last one line of JSON. Models have the published sizes and random weights: speed does not depend
    on them. All parts take about an hour on two cores, those of B/16 half of that; nothing else should run.
    """
    import torch

    from deop.bench.run import run
    from deop.bench.setup import Setup
    from deop.bench.subjects import synthetic_photo
    from deop.images.reading import read_photo
    from deop.zoo import choose_device, choose_dtype

    if threads:
        torch.set_num_threads(threads)
    pixels = synthetic_photo(512, 512, seed) if photo is None else read_photo(photo)
    setup = Setup(choose_device(device), choose_dtype(dtype), pixels, 1 if quick else repeats, quick, seed,
                  tuple(str(tower) for tower in towers or Tower))  # fmt: skip
    line = run(setup, topics or list(Topic))
    if json_file:
        from deop.files import replacing

        with replacing(json_file) as file:
            file.write(line.encode() + b"\n")
        say(f"wrote {json_file}")
    typer.echo(line)
