"""One pass against two streams: the same photo, weights, masks and precision."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from deop.bench.report import Part, Row, faster
from deop.bench.setup import Setup
from deop.bench.subjects import NANO_NAMES, SIDES, blobs, clip_model, names
from deop.bench.timing import take_turns
from deop.images.canvas import Canvas, canvas_of
from deop.images.preprocessing import resize_photo, to_pixels
from deop.model import DeOP
from deop.proposals.types import Proposals
from deop.regions.classification import classify
from deop.regions.encoding import encode_one_pass, encode_two_stream
from deop.regions.two_stream import TwoStream
from deop.text.embedding import Classes

COUNTS = (10, 25, 50, 100)
"""Proposals a photo."""
CLASSES = 20
"""Names that are asked for."""
KINDS = ("one-pass", "two-stream")
STAGE_GOALS = {("B/16", 100): 12.0, ("B/16", 25): 3.0}
END_GOALS = {("B/16", 100): 8.0}


def _turns(setup: Setup, tower: str, count: int) -> tuple[int, torch.device, int]:
    """Turns that count, the device, and turns before them: none where one takes half a minute on a CPU."""
    long = setup.device.type == "cpu" and (count > 25 or tower != "B/16")
    return (setup.few, setup.device, 0) if long else (setup.repeats, setup.device, 1)


@dataclass
class Scene:
    """A photo as both ways get it, masks and names: all that comes before the classification stage."""

    model: DeOP
    resized: np.ndarray
    canvas: Canvas
    pixels: Tensor
    proposals: list[Proposals]
    classes: Classes

    @classmethod
    def of(cls, model: DeOP, setup: Setup, count: int) -> "Scene":
        """The photo resized for a model, with ``count`` masks."""
        divisor = model.settings.resize.divisor
        resized = resize_photo(setup.photo, model.settings.resize)
        canvas = canvas_of(setup.photo, model.settings.resize)
        pixels = to_pixels(resized, model.encoder.normalization, divisor, setup.device, setup.dtype)[None]
        logits = blobs(count, (canvas.padded[0] // 4, canvas.padded[1] // 4), setup.seed).to(setup.device)
        proposals = [Proposals(logits, torch.arange(count))]
        return cls(model, resized, canvas, pixels, proposals, model.embed(model.vocabulary(names(CLASSES))))

    @torch.inference_mode()
    def once(self) -> Tensor:
        """One pass: encoder, anchors, logits."""
        model = self.model
        severance = model.settings.severance
        looks = encode_one_pass(
            model.encoder, model.anchors, model.settings, self.pixels, [self.canvas], self.proposals, severance
        )
        return classify(looks[0].regions, self.classes, None, model.settings.temperature)

    @torch.inference_mode()
    def crops(self) -> Tensor:
        """Two streams: crops, encoder, logits."""
        model = self.model
        looks = encode_two_stream(
            model.encoder, [self.resized], [self.canvas], self.proposals, TwoStream(), model.device, model.dtype
        )
        return classify(looks[0].regions, self.classes, None, model.settings.temperature)


def stage(setup: Setup) -> Part:
    """The classification stage alone, from masks to logits."""
    rows: list[Row] = []
    for tower in setup.towers:
        model = clip_model(tower, depth=None, seed=setup.seed).to(setup.device, setup.dtype)
        for count in setup.some(COUNTS):
            scene = Scene.of(model, setup, count)
            subjects = {"one": scene.once, "two": scene.crops}
            found = take_turns(subjects, *_turns(setup, tower, count))
            label = f"{tower} at {SIDES[tower]}, {count} masks"
            rows.append(faster(label, found["one"], found["two"], "two streams", STAGE_GOALS.get((tower, count))))
    return Part("stage", "The classification stage: one pass, and two streams", tuple(rows))


def whole(setup: Setup) -> Part:
    """End to end, from the pixels of a photo to its map."""
    rows: list[Row] = []
    chosen = [(tower, depth) for tower, depth in (("B/16", 50), ("B/16", 101), ("L/14", 50)) if tower in setup.towers]
    for tower, depth in chosen[:1] if setup.quick else chosen:
        for count in setup.some(COUNTS if depth == 50 else COUNTS[-1:]):
            model = clip_model(tower, proposals=count, depth=depth, seed=setup.seed).to(setup.device, setup.dtype)
            vocabulary = model.vocabulary(names(CLASSES))

            subjects = {kind: partial(model.segment, setup.photo, vocabulary, classifier=kind) for kind in KINDS}
            found = take_turns(subjects, *_turns(setup, tower, count))
            label = f"{tower} at {SIDES[tower]}, R{depth}, {count} masks"
            goal = END_GOALS.get((tower, count))
            rows.append(faster(label, found["one-pass"], found["two-stream"], "two streams", goal))
    rows.append(_nano(setup))
    return Part("whole", "Photo to map: one pass, and two streams", tuple(rows))


def _nano(setup: Setup) -> Row:
    """The model that ships, with its own masks."""
    from deop.zoo import load

    model = load("nano", device=setup.device, dtype=setup.dtype)
    model.cache = None
    vocabulary = model.vocabulary(NANO_NAMES)
    subjects = {kind: partial(model.segment, setup.photo, vocabulary, classifier=kind) for kind in KINDS}
    found = take_turns(subjects, *_turns(setup, "B/16", 10))
    count = len(model.encode([setup.photo])[0].proposals)
    return faster(f"nano, its own {count} masks", found["one-pass"], found["two-stream"], "two streams")
