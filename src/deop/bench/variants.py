"""The encoder in other precisions and compiled: what pays on this machine, and how far its features move."""

import copy
import time
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.bench.report import Part, Row, faster
from deop.bench.setup import Setup
from deop.bench.subjects import NANO_NAMES, SIDES, clip_model, names
from deop.bench.timing import Subject, Times, take_turns
from deop.encoders.int8 import to_int8


def variants(setup: Setup) -> Part:
    """float32 as it is, compiled, in bfloat16 and, on a CPU, in int8."""
    rows: list[Row] = []
    for tower in setup.towers[:1] if setup.quick else setup.towers:
        model = clip_model(tower, depth=None, anchors=False, seed=setup.seed).to(setup.device)
        side = SIDES[tower]
        generator = torch.Generator().manual_seed(setup.seed)
        pixels = torch.randn(1, 3, side, side, generator=generator).to(setup.device)
        base: Any = model.encoder
        half = copy.deepcopy(base).to(torch.bfloat16)
        subjects: dict[str, Subject] = {
            "float32": partial(_encode, base, pixels),
            "bfloat16": partial(_encode, half, pixels.bfloat16()),
        }
        if setup.device.type == "cpu":
            int8 = copy.deepcopy(base)
            to_int8(int8)
            subjects["int8"] = partial(_encode, int8, pixels)
        seconds = 0.0
        if not setup.quick:
            compiled: Any = torch.compile(base)
            subjects["compiled"] = partial(_encode, compiled, pixels)
            started = time.perf_counter()
            subjects["compiled"]()
            seconds = time.perf_counter() - started
        exact = subjects["float32"]()
        found: dict[str, Times] = take_turns(subjects, setup.repeats, setup.device)
        for key in list(subjects)[1:]:
            alike = float(F.cosine_similarity(_flat(exact), _flat(subjects[key]()), dim=-1).mean())
            figures = {"cosine of patches": alike}
            if key == "compiled":
                figures["s to compile"] = seconds
            rows.append(faster(f"{tower} at {side}, {key}", found[key], found["float32"], "float32", **figures))
    if setup.device.type == "cpu":
        rows += _maps_in_int8(setup)
    return Part("variants", "The encoder compiled and in other precisions, and as it is", tuple(rows))


def _maps_in_int8(setup: Setup) -> list[Row]:
    """What int8 in the encoder is worth from photo to map, as ``load(dtype="int8")`` has it."""
    from deop.zoo import load

    rows = []
    pairs = {"nano": (load("nano", device="cpu"), load("nano", device="cpu", dtype="int8"), NANO_NAMES)}
    if "B/16" in setup.towers and not setup.quick:
        clip, int8 = (clip_model("B/16", seed=setup.seed) for _ in range(2))
        to_int8(int8.encoder)  # type: ignore[arg-type]
        pairs["B/16 at 512, R50"] = (clip, int8, names(20))
    for label, (exact, int8, asked) in pairs.items():
        words = exact.vocabulary(asked)
        for model in (exact, int8):
            model.cache = None
        subjects = {key: partial(model.segment, setup.photo, words) for key, model in (("a", exact), ("b", int8))}
        found = take_turns(subjects, setup.repeats, setup.device)
        rows.append(faster(f"{label}, photo to map, int8", found["b"], found["a"], "float32"))
    return rows


@torch.inference_mode()
def _encode(encoder: nn.Module, pixels: Tensor) -> Tensor:
    return encoder(pixels).patches


def _flat(patches: Any) -> Tensor:
    return patches.float().flatten(2).mT
