"""All parts of a bench, one after the other."""

import gc
import warnings
from collections.abc import Callable, Sequence

from rich.console import Console

from deop.bench import Topic
from deop.bench.encoder import machine, severed
from deop.bench.folder import folder
from deop.bench.names import clipseg, vocabulary
from deop.bench.report import Part, as_json, environment, show
from deop.bench.setup import Setup
from deop.bench.sizes import sizes
from deop.bench.stages import stages
from deop.bench.start import start
from deop.bench.streams import stage, whole
from deop.bench.variants import variants
from deop.text.vocabulary import VocabularyWarning

PARTS: dict[Topic, Callable[[Setup], Part]] = {
    Topic.stage: stage,
    Topic.whole: whole,
    Topic.clipseg: clipseg,
    Topic.names: vocabulary,
    Topic.sizes: sizes,
    Topic.severed: severed,
    Topic.machine: machine,
    Topic.variants: variants,
    Topic.stages: stages,
    Topic.folder: folder,
    Topic.start: start,
}

WIDTH = 140
"""Columns of the tables where they go to a file."""


def run(setup: Setup, chosen: Sequence[Topic]) -> str:
    """Measure, print each table when it is done, give everything as one line of JSON."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    found: list[Part] = []
    made_on = environment(setup.device, setup.dtype, setup.seed)
    made_on["photo"] = list(setup.photo.shape[:2])
    made_on["quick"] = setup.quick
    console.print(
        f"{made_on['device']}, {made_on['threads']} threads, {made_on['dtype']}, torch {made_on['versions']['torch']}; "
        f"photo {setup.photo.shape[1]} x {setup.photo.shape[0]}\n",
        style="dim",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VocabularyWarning)  # random names may be alike
        for key in chosen:
            found.append(PARTS[key](setup))
            show(found[-1], console)
            gc.collect()
    goals = [row for part in found for row in part.rows if row.goal]
    if goals:
        missed = [row for row in goals if not row.met]
        console.print(f"{len(goals) - len(missed)} of {len(goals)} goals met")
    return as_json(found, made_on)
