"""``deop bench``: the speed of deop on this machine, compared with two streams, CLIPSeg and a matrix product."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deop.bench import SHORT, Topic
from deop.cli.options import Debug, option
from deop.cli.output import write_text
from deop.errors import SettingError
from deop.files import check_writable


class TowerSize(StrEnum):
    """The sizes of CLIP that are measured."""

    base = "B/16"
    large = "L/14"


def bench(
    topics: Annotated[
        list[Topic] | None,
        typer.Argument(
            metavar="TOPIC",
            show_choices=False,  # typer would fold the long list in a narrow column
            help=f"What to measure in full: {', '.join(Topic)}; docs/speed.md explains them. "
            f"Default: the main cases of {', '.join(SHORT)}.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, option("--all", help="Measure all topics in full, which takes an hour and a half on two cores.")
    ] = False,
    photo: Annotated[
        Path | None,
        option("--photo", metavar="FILE", help="The photo to use. Default: a synthetic one, 512 x 512 pixels."),
    ] = None,
    repeats: Annotated[
        int,
        option(
            "--repeats", metavar="N", min=3, show_default=True,
            help="How often each case is timed; slow cases are timed half as often, at least three times.",
        ),
    ] = 5,
    quick: Annotated[
        bool, option("--quick", help="Run a few small cases only, to check that everything works.")
    ] = False,
    json_file: Annotated[
        Path | None, option("--json", metavar="FILE", help="Also write the results to a JSON file.")
    ] = None,
    device: Annotated[
        str | None,
        option("--device", metavar="DEVICE", help="cpu or cuda. Default: a GPU if there is one, else the CPU."),
    ] = None,
    dtype: Annotated[
        str | None,
        option("--dtype", metavar="TYPE", help="Precision: float32, bfloat16 or float16. Default: float32."),
    ] = None,
    threads: Annotated[
        int | None, option("--threads", metavar="N", min=1, help="Number of CPU threads. Default: one per core.")
    ] = None,
    seed: Annotated[
        int,
        option("--seed", metavar="N", min=0, show_default=True,
               help="Random seed of the weights, masks and synthetic photos."),
    ] = 0,
    towers: Annotated[
        list[TowerSize] | None,
        option(
            "--tower", metavar="SIZE",
            help="CLIP size to measure: B/16 or L/14; may be repeated. Default: both, but B/16 without topics. L/14 is "
            "slow on a CPU.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Measure the speed of deop on this machine.

    The cases of a comparison alternate within one process, so that their ratios hold on a noisy machine. Prints tables,
    then one line of JSON. Models have the published sizes and random weights, which do not affect speed.

    Without topics it takes less than five minutes on two cores, and the last lines say how long each topic takes in
    full. Close other programs meanwhile.
    """
    import torch

    from deop.bench.run import run
    from deop.bench.subjects import BenchOptions, synthetic_photo
    from deop.images.reading import read_photo
    from deop.zoo import choose_device, choose_dtype

    if everything and topics:
        raise SettingError("--all measures all topics: omit the list of topics")
    short = not everything and not topics
    check_writable([json_file] if json_file else [])
    if threads:
        torch.set_num_threads(threads)
    options = BenchOptions(
        device=choose_device(device),
        dtype=choose_dtype(dtype),
        photo=synthetic_photo(512, 512, seed) if photo is None else read_photo(photo),
        repeats=1 if quick else repeats,
        quick=quick,
        seed=seed,
        towers=tuple(str(tower) for tower in towers or ([TowerSize.base] if short else TowerSize)),
        short=short,
    )
    line = run(options, list(Topic) if everything else topics or list(SHORT))
    if json_file:
        write_text(json_file, line)
    typer.echo(line)
