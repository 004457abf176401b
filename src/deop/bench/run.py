"""Runs the topics of a bench one after the other."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from deop.bench import MINUTES, Topic
from deop.bench.comparisons import measure_classification, measure_clipseg, measure_names, measure_photo_to_map
from deop.bench.encoder_speed import measure_severance, measure_utilization, measure_variants
from deop.bench.end_to_end import measure_directory, measure_photo_sizes, measure_stages, measure_start_up
from deop.bench.engines import measure_engines
from deop.bench.memory import measure_memory
from deop.bench.race import measure_race
from deop.bench.subjects import BenchOptions
from deop.bench.tables import Measurement, as_json, environment, show
from deop.bench.timing import observed
from deop.text.vocabulary import VocabularyWarning

MEASUREMENTS: dict[Topic, Callable[[BenchOptions], Measurement]] = {
    Topic.stage: measure_classification,
    Topic.whole: measure_photo_to_map,
    Topic.race: measure_race,
    Topic.clipseg: measure_clipseg,
    Topic.names: measure_names,
    Topic.sizes: measure_photo_sizes,
    Topic.memory: measure_memory,
    Topic.severed: measure_severance,
    Topic.machine: measure_utilization,
    Topic.variants: measure_variants,
    Topic.stages: measure_stages,
    Topic.folder: measure_directory,
    Topic.start: measure_start_up,
    Topic.engines: measure_engines,
}

WIDTH = 140
"""Columns of the tables where they do not go to a terminal."""


def run(options: BenchOptions, topics: Sequence[Topic]) -> str:
    """Measure each topic and print its table.

    Returns:
        Everything as one line of JSON.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    details = environment(options.device, options.dtype, options.seed)
    details["photo"] = list(options.photo.shape[:2])
    details["quick"] = options.quick
    details["short"] = options.short
    console.print(
        f"{details['device']}, {details['threads']} threads, {details['dtype']}, torch {details['versions']['torch']}; "
        f"photo {options.photo.shape[1]} x {options.photo.shape[0]}\n",
        style="dim",
    )
    measurements: list[Measurement] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VocabularyWarning)  # nano has similar embeddings for made-up names
        for number, topic in enumerate(topics, 1):
            with _progress(f"{topic} ({number} of {len(topics)})"):
                measurements.append(MEASUREMENTS[topic](options))
            show(measurements[-1], console)
            gc.collect()
    rows = [row for measurement in measurements for row in measurement.rows if row.goal]
    if rows:
        console.print(f"{sum(bool(row.met) for row in rows)} of {len(rows)} goals met")
    if options.short:
        longer = ", ".join(f"{topic} ({MINUTES[topic]} min)" for topic in Topic)
        console.print(
            f"This was the short form. deop bench TOPIC measures one topic in full, on two cores: {longer}. "
            f"deop bench --all measures all of them in about {sum(MINUTES.values())} min.",
            style="dim",
        )
    return as_json(measurements, details)


@contextmanager
def _progress(topic: str) -> Iterator[None]:
    """Show on stderr what is measured and for how long; where that is no terminal, one line for each topic."""
    console, started = Console(stderr=True, highlight=False), time.perf_counter()
    if not console.is_terminal:
        console.print(f"measuring {topic}")
        yield
        return
    with console.status(topic) as status:

        def show_case(text: str) -> None:
            minutes, seconds = divmod(int(time.perf_counter() - started), 60)
            status.update(f"{topic}: {text} [dim]after {minutes}:{seconds:02}[/dim]")

        with observed(show_case):
            yield
