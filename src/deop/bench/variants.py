"""The encoder in other precisions and compiled: what pays on this machine, and how far its features move."""

import copy
import time
import warnings
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.bench.report import Part, Row, faster
from deop.bench.setup import Setup
from deop.bench.subjects import SIDES, clip_model
from deop.bench.timing import Subject, Times, take_turns


def quantized(encoder: nn.Module, severed: int = 1) -> nn.Module:
    """A copy whose linear layers multiply in int8: weights beforehand, what comes in as it comes ("dynamic").

    Args:
        encoder: left as it is.
        severed: blocks at the end whose queries, keys and values stay as they are: severing takes them apart.
    """
    from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic

    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    last = [name for name in linear if name.endswith("attention.qkv")][-severed:]
    chosen = {name: default_dynamic_qconfig for name in linear if name not in last}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it moves to another package in time
        return quantize_dynamic(copy.deepcopy(encoder), chosen, dtype=torch.qint8)


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
            subjects["int8"] = partial(_encode, quantized(base), pixels)
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
    return Part("variants", "The encoder compiled and in other precisions, and as it is", tuple(rows))


@torch.inference_mode()
def _encode(encoder: nn.Module, pixels: Tensor) -> Tensor:
    return encoder(pixels).patches


def _flat(patches: Any) -> Tensor:
    return patches.float().flatten(2).mT
