"""deop against other ways to the same map: two streams, CLIPSeg, and itself with more class names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deop.bench.subjects import (
    NANO_NAMES,
    SIDES,
    BenchOptions,
    RandomCLIPSeg,
    clip_model,
    distinct_names,
    elliptic_masks,
    nano_words,
)
from deop.bench.tables import Goal, Measurement, Row, compare
from deop.bench.timing import Case, time_alternately
from deop.images.canvas import Canvas, canvas_of
from deop.images.preprocessing import resize_photo, to_pixels
from deop.model import DeOP
from deop.proposals.types import Proposals
from deop.regions.classification import ClassTensors, classify
from deop.regions.encoding import encode_one_pass, encode_two_stream
from deop.regions.two_stream import TwoStream
from deop.results.segmentation import Segmentation
from deop.surface import ModelSurface
from deop.text.vocabulary import Vocabulary

PROPOSAL_COUNTS = (10, 25, 50, 100)
NAME_COUNTS = (10, 100, 1_000, 10_000)
CLASSES = 20
"""Class names where their number is not what is measured."""
CLASSIFIERS = ("one-pass", "two-stream")

STAGE_GOALS = {("B/16", 100): 12.0, ("B/16", 25): 3.0}
"""Minimum ratio of two streams to one pass, by tower and number of proposals; so is ``WHOLE_GOALS``."""
WHOLE_GOALS = {("B/16", 100): 8.0}
CLIPSEG_GOALS = {20: 4.0, 150: 25.0}
"""Minimum ratio of CLIPSeg to deop, by number of names."""
NAMES_GOAL = 1.15
"""Maximum ratio of 10,000 names to 10."""


def _repeats(options: BenchOptions, tower: str, count: int) -> tuple[int, int]:
    """Timed runs, and warm-up runs before them: none where a run takes half a minute on a CPU."""
    slow = options.device.type == "cpu" and (count > 25 or tower != "B/16")
    return (options.few_repeats, 0) if slow else (options.repeats, 1)


@dataclass
class ClassificationInputs:
    """The inputs of the classification stage, the same for both classifiers."""

    model: DeOP
    resized: np.ndarray
    canvas: Canvas
    pixels: Tensor
    proposals: list[Proposals]
    classes: ClassTensors

    @classmethod
    def prepare(cls, model: DeOP, options: BenchOptions, count: int) -> "ClassificationInputs":
        """The inputs for the photo of a bench with ``count`` masks."""
        resize = model.settings.resize
        resized = resize_photo(options.photo, resize)
        canvas = canvas_of(options.photo, resize)
        pixels = to_pixels(
            resized, model.encoder.normalization, resize.divisor, device=options.device, dtype=options.dtype
        )
        logits = elliptic_masks(count, (canvas.padded[0] // 4, canvas.padded[1] // 4), options.seed)
        proposals = [Proposals(logits.to(options.device), torch.arange(count))]
        classes = model.class_tensors(model.vocabulary(distinct_names(CLASSES)))
        return cls(model, resized, canvas, pixels[None], proposals, classes)

    @torch.inference_mode()
    def one_pass(self) -> Tensor:
        """One pass: encoder, anchors, logits."""
        model, severance = self.model, self.model.settings.severance
        encoded = encode_one_pass(
            model.encoder, model.anchors, model.settings, self.pixels, [self.canvas], self.proposals, severance
        )
        return classify(encoded[0].regions, self.classes, None, model.settings.temperature)

    @torch.inference_mode()
    def two_stream(self) -> Tensor:
        """Two streams: crops, encoder, logits."""
        model = self.model
        encoded = encode_two_stream(
            model.encoder, [self.resized], [self.canvas], self.proposals, TwoStream(), model.device, model.dtype
        )
        return classify(encoded[0].regions, self.classes, None, model.settings.temperature)


def measure_classification(options: BenchOptions) -> Measurement:
    """The classification stage alone, from masks to logits."""
    rows: list[Row] = []
    for tower in options.towers:
        model = clip_model(tower, depth=None, seed=options.seed).to(options.device, options.dtype)
        for count in (25, 100) if options.short else options.shorten(PROPOSAL_COUNTS):
            inputs = ClassificationInputs.prepare(model, options, count)
            cases: dict[str, Case] = {"one-pass": inputs.one_pass, "two-stream": inputs.two_stream}
            repeats, warm_up = _repeats(options, tower, count)
            times = time_alternately(cases, repeats, options.device, warm_up=warm_up)
            label = f"{tower} at {SIDES[tower]}, {count} masks"
            goal = STAGE_GOALS.get((tower, count))
            rows.append(compare(label, times["one-pass"], times["two-stream"], "two streams", goal))
    return Measurement("stage", "The classification stage: one pass and two streams", tuple(rows))


def measure_photo_to_map(options: BenchOptions) -> Measurement:
    """The whole way from the pixels of a photo to its label map."""
    rows: list[Row] = []
    models = [(tower, depth) for tower, depth in (("B/16", 50), ("B/16", 101), ("L/14", 50)) if tower in options.towers]
    for tower, depth in models[:1] if options.quick else models:
        for count in options.shorten(PROPOSAL_COUNTS if depth == 50 else PROPOSAL_COUNTS[-1:]):
            model = clip_model(tower, proposals=count, depth=depth, seed=options.seed)
            model.to(options.device, options.dtype)
            vocabulary = model.vocabulary(distinct_names(CLASSES))
            label = f"{tower} at {SIDES[tower]}, R{depth}, {count} masks"
            repeats = _repeats(options, tower, count)
            rows.append(
                _compare_classifiers(options, label, model, vocabulary, repeats, WHOLE_GOALS.get((tower, count)))
            )
    from deop.zoo import load

    nano = load("nano", engine="torch", device=options.device, dtype=options.dtype)
    nano.cache = None
    count = len(nano.encode([options.photo])[0].proposals)
    label = f"nano, its own {count} masks"
    rows.append(_compare_classifiers(options, label, nano, nano.vocabulary(NANO_NAMES), _repeats(options, "B/16", 10)))
    return Measurement("whole", "Photo to map: one pass and two streams", tuple(rows))


def _compare_classifiers(
    options: BenchOptions,
    label: str,
    model: DeOP,
    vocabulary: Vocabulary,
    repeats: tuple[int, int],
    goal: float | None = None,
) -> Row:
    cases = {kind: partial(model.segment, options.photo, vocabulary, classifier=kind) for kind in CLASSIFIERS}
    times = time_alternately(cases, repeats[0], options.device, warm_up=repeats[1])
    return compare(label, times["one-pass"], times["two-stream"], "two streams", goal)


def measure_clipseg(options: BenchOptions) -> Measurement:
    """deop and transformers' CLIPSeg."""
    model = clip_model("B/16", seed=options.seed).to(options.device, options.dtype)
    clipseg = RandomCLIPSeg(options.device, options.dtype, options.seed)
    rows: list[Row] = []
    for count in options.shorten((2, 20, 150)):
        vocabulary = model.vocabulary(distinct_names(count))
        cases: dict[str, Case] = {
            "deop": partial(model.segment, options.photo, vocabulary),
            "documented": partial(clipseg.documented, options.photo, count),
            "once": partial(clipseg.once, options.photo, count),
        }
        repeats, warm_up = (options.repeats, 1) if count < 100 else (options.few_repeats, 0)
        times = time_alternately(cases, repeats, options.device, warm_up=warm_up)
        label, goal = f"{count} names, CLIPSeg", CLIPSEG_GOALS.get(count)
        rows.append(compare(f"{label} as documented", times["deop"], times["documented"], "CLIPSeg", goal))
        rows.append(compare(f"{label} encoding once", times["deop"], times["once"], "CLIPSeg, once"))
    return Measurement(
        "clipseg",
        "deop (B/16 at 512, R50, 100 masks) and CLIPSeg (B/16 at 352)",
        tuple(rows),
        "As documented: the photo is encoded again for each prompt. Encoding once: the photo is encoded once, and the "
        "prompts in advance.",
    )


def measure_names(options: BenchOptions) -> Measurement:
    """Photo to map by the number of names, which are embedded in advance."""
    from deop.zoo import load

    counts = options.shorten(NAME_COUNTS)
    models: dict[str, Any] = {
        "B/16": clip_model("B/16", seed=options.seed).to(options.device, options.dtype),
        "nano, torch": load("nano", engine="torch", device=options.device, dtype=options.dtype),
    }
    if options.device.type == "cpu":
        models["nano, ONNX"] = load("nano", engine="onnx", device="cpu", threads=torch.get_num_threads())
    rows = []
    for label, model in models.items():
        model.cache = None
        cases: dict[str, Case] = {}
        for count in counts:
            names = distinct_names(count) if label == "B/16" else nano_words(model, count)
            case = partial(_encode_and_label, model, options.photo, model.vocabulary(names))
            case()  # only the last vocabulary is kept, so that its embedding is not part of the time
            kept = {name: getattr(model, name, None) for name in ("_last_embedded", "_last_tensors")}
            cases[str(count)] = partial(_with_embedding, model, kept, case)
        times = time_alternately(cases, options.repeats, options.device)
        shortest = times[str(counts[0])].p50
        for count in counts:
            goal = Goal("times as long", NAMES_GOAL, higher_is_better=False) if count == NAME_COUNTS[-1] else None
            figures = {"times as long": times[str(count)].p50 / shortest}
            rows.append(Row(f"{label}, {count:,} names", times[str(count)], figures=figures, goal=goal))
    return Measurement("names", "Photo to map by names: B/16 at 512 with R50 and 100 masks; nano", tuple(rows))


def _with_embedding(model: Any, kept: Mapping[str, Any], case: Case) -> object:
    """Run a case with what the model has kept of a vocabulary that was embedded before."""
    for name, value in kept.items():
        setattr(model, name, value)
    return case()


def _encode_and_label(model: ModelSurface, photo: np.ndarray, vocabulary: Vocabulary) -> Segmentation:
    return model.label(model.encode([photo])[0], vocabulary)
