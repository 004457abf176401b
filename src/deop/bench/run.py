"""Runs the topics of a bench one after the other."""

import gc
import warnings
from collections.abc import Callable, Sequence

from rich.console import Console

from deop.bench import Topic
from deop.bench.comparisons import measure_classification, measure_clipseg, measure_names, measure_photo_to_map
from deop.bench.encoder_speed import measure_severance, measure_utilization, measure_variants
from deop.bench.end_to_end import measure_directory, measure_photo_sizes, measure_stages, measure_start_up
from deop.bench.engines import measure_engines
from deop.bench.subjects import BenchOptions
from deop.bench.tables import Measurement, as_json, environment, show
from deop.text.vocabulary import VocabularyWarning

MEASUREMENTS: dict[Topic, Callable[[BenchOptions], Measurement]] = {
    Topic.stage: measure_classification,
    Topic.whole: measure_photo_to_map,
    Topic.clipseg: measure_clipseg,
    Topic.names: measure_names,
    Topic.sizes: measure_photo_sizes,
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
    console.print(
        f"{details['device']}, {details['threads']} threads, {details['dtype']}, torch {details['versions']['torch']}; "
        f"photo {options.photo.shape[1]} x {options.photo.shape[0]}\n",
        style="dim",
    )
    measurements: list[Measurement] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VocabularyWarning)  # nano has similar embeddings for made-up names
        for topic in topics:
            measurements.append(MEASUREMENTS[topic](options))
            show(measurements[-1], console)
            gc.collect()
    rows = [row for measurement in measurements for row in measurement.rows if row.goal]
    if rows:
        console.print(f"{sum(bool(row.met) for row in rows)} of {len(rows)} goals met")
    return as_json(measurements, details)
