"""Browse the results of ``deop batch`` in FiftyOne: filter by name and score, find failures, tag photos.

    pip install "deop[batch,fiftyone]"
    deop batch photos results --classes "cat, sofa, wall" --mode panoptic
    python browse.py results

``--dataset NAME`` names FiftyOne's data set ("deop"; one that exists is replaced); ``--no-app`` does not open the app.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fiftyone as fo

from deop.batch.results import BatchResults

SAMPLES = 100
"""Samples that are in memory at a time."""


def samples_of(results: BatchResults) -> Iterator[fo.Sample]:
    """A sample for each photo: ``segments`` has the masks and scores, ``labels`` the name of each pixel."""
    for row in results:
        if not Path(row.path).is_file():
            raise SystemExit(f"{row.id}: FiftyOne needs a file, and there is none at {row.path}")
        sample = fo.Sample(row.path, deop_id=row.id, error=row.error or None)
        if row.result is not None:
            sample["segments"] = row.result.to_fiftyone()
            sample["labels"] = row.result.to_fiftyone("segmentation")
            sample["unnamed"] = float((row.result.label_map < 0).mean())
        yield sample


def build(results: BatchResults, name: str) -> fo.Dataset:
    """The data set of a batch."""
    dataset = fo.Dataset(name, persistent=True, overwrite=True)
    dataset.add_sample_field("error", fo.StringField)  # also if no photo failed
    dataset.default_mask_targets = {index + 1: text for index, text in enumerate(results.names)}
    samples = samples_of(results)
    while some := list(islice(samples, SAMPLES)):
        dataset.add_samples(some)
    return dataset


def main() -> None:
    """Build the data set and open the app."""
    parser = argparse.ArgumentParser(description="Browse the results of deop batch in FiftyOne.")
    parser.add_argument("results", help="the output of deop batch")
    parser.add_argument("--dataset", default="deop", help="name of FiftyOne's data set")
    parser.add_argument("--no-app", action="store_true", help="do not open the app")
    options = parser.parse_args()
    dataset = build(BatchResults(options.results), options.dataset)
    print(f"{len(dataset)} photos in FiftyOne's data set {options.dataset}")
    if not options.no_app:
        fo.launch_app(dataset).wait()


if __name__ == "__main__":
    main()
