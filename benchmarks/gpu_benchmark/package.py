"""Parts of the benchmark: the package as it is used, the shipped model, and waits of the host."""

from collections.abc import Iterator, Sequence

import numpy as np

from deop.bench.subjects import NANO_NAMES, distinct_names
from deop.bench.timing import Case
from deop.model import DeOP
from deop.text.vocabulary import Vocabulary
from deop.zoo import load
from gpu_benchmark.fixed_pass import FixedPass
from gpu_benchmark.report import Row
from gpu_benchmark.session import WAITS, Session
from gpu_benchmark.timing import find_waits, median_seconds


def measure_package(session: Session) -> Iterator[Row]:
    """``DeOP.segment`` and its two halves, for photos in the host's memory, without CUDA graphs."""
    model = session.model("B/16")
    vocabulary = model.vocabulary(distinct_names(session.scale.names))
    side = model.settings.resize.short_side or 0
    for batch in reversed(session.scale.batches):
        yield from _segment_and_halves(session, model, session.photos(batch, side), vocabulary)


def measure_nano(session: Session) -> Iterator[Row]:
    """The shipped model, for photos in the host's memory, and where it waits."""
    model = load("nano", engine="torch", device=session.device, dtype=session.dtype)
    model.cache = None
    vocabulary = model.vocabulary(NANO_NAMES)
    side = 64 if session.scale.tiny else 512
    for batch in reversed(session.scale.batches[: 1 if session.scale.tiny else None]):
        yield from _segment_and_halves(session, model, session.photos(batch, side), vocabulary)
    photos = session.photos(1, side)
    waits = find_waits(lambda: model.encode(photos), session.device)
    yield {"case": "DeOP.encode, one photo", "waits": sum(wait["count"] for wait in waits), "lines": waits}


def _segment_and_halves(
    session: Session, model: DeOP, photos: Sequence[np.ndarray], vocabulary: Vocabulary
) -> Iterator[Row]:
    batch, encoded = len(photos), model.encode(photos)
    model.embed(vocabulary)
    cases: dict[str, Case] = {
        "segment": lambda: model.segment(photos, vocabulary, batch=batch),
        "encode": lambda: model.encode(photos),
        "label": lambda: [model.label(photo, vocabulary) for photo in encoded],
    }
    session.peak_memory()
    durations = median_seconds(cases, session.device, repeats=8, seconds=2.0)
    memory = session.peak_memory()
    for name, seconds in durations.items():
        row = {"case": f"batch {batch}, {name}", "ms": 1000 * seconds, "images/s": batch / seconds}
        yield {**row, **memory} if name == "segment" else row


def measure_waits(session: Session) -> Iterator[Row]:
    """Lines at which the host waits. A pass lasts from photos on the device to label maps on the device."""
    model = session.model("B/16")
    fixed = FixedPass(model, session.scale, 2)
    vocabulary = model.vocabulary(distinct_names(session.scale.names))
    photos = session.photos(2, model.settings.resize.short_side or 0)
    encoded = model.encode(photos)
    inside: dict[str, Case] = {
        "the pass, two photos": fixed,
        "DeOP.encode, two photos": lambda: model.encode(photos),
        "DeOP.embed, embedded before": lambda: model.embed(vocabulary),
        "DeOP.class_probabilities, two photos": lambda: [
            model.class_probabilities(photo, vocabulary) for photo in encoded
        ],
    }
    outside: dict[str, Case] = {
        "DeOP.label, semantic, one photo": lambda: model.label(encoded[0], vocabulary),
        "DeOP.label, panoptic, one photo": lambda: model.label(encoded[0], vocabulary, mode="panoptic"),
    }
    total = 0
    for name, case in {**inside, **outside}.items():
        waits = find_waits(case, session.device)
        count = sum(wait["count"] for wait in waits)
        yield {"case": name, "waits": count, "lines": waits}
        total += count if name in inside else 0
    if session.device.type == "cuda":
        session.record(WAITS, total, "the pass, encode, embed and class_probabilities; set_sync_debug_mode")
