"""The vision encoder alone: severed or not, against a matrix product, and in other precisions."""

import copy
import time
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.bench.subjects import (
    NANO_NAMES,
    SIDES,
    TOWERS,
    BenchOptions,
    clip_model,
    distinct_names,
    elliptic_masks,
)
from deop.bench.tables import Goal, Measurement, Row, compare
from deop.bench.timing import Case, time_alternately
from deop.encoders.clip import VisionConfig
from deop.encoders.int8 import to_int8
from deop.encoders.severance import KINDS, Severance
from deop.images.preprocessing import resize_photo, to_pixels
from deop.model import DeOP
from deop.networks.resampling import grid_of

MASKS = 100
SHARE_GOALS = {"cpu": 0.65, "cuda": 0.45}
"""Minimum share of the rate of a matrix product, by device type."""


def encoder_flops(config: VisionConfig, size: tuple[int, int], severed: int = 0) -> int:
    """Floating-point operations for one image: those of the matrix products, two per multiply-add.

    Args:
        config: the tower.
        size: (H, W) of the image in pixels.
        severed: number of blocks of which only the values are computed, without queries, keys and attention.
    """
    rows, columns = grid_of(size, config.patch)
    patches, width = rows * columns, config.width
    tokens = patches + 1
    linear = tokens * width * (4 * width + 2 * config.hidden)
    attention = 2 * tokens**2 * width
    saved = severed * (tokens * 2 * width**2 + attention)
    embedding = patches * 3 * config.patch**2 * width
    projection = tokens * width * config.output
    fits = (rows, columns) == (config.grid, config.grid)
    positions = 0 if fits else rows * config.grid * (config.grid + columns) * width
    return 2 * (config.layers * (linear + attention) - saved + positions + embedding + projection)


class MatrixProduct:
    """A product of two square matrices: the highest rate that the machine's library reaches.

    Args:
        device: device of the matrices.
        dtype: their precision.
        side: number of their rows and columns.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, side: int) -> None:
        self.left = torch.randn(side, side, device=device, dtype=dtype)
        self.right = torch.randn(side, side, device=device, dtype=dtype)
        self.flops = 2 * side**3

    def __call__(self) -> Tensor:
        """Multiply."""
        return self.left @ self.right


@torch.inference_mode()
def _encode(model: DeOP, pixels: Tensor, masks: Tensor | None = None, severance: Severance | None = None) -> object:
    return model.encoder(pixels, masks, severance=severance)


def measure_severance(options: BenchOptions) -> Measurement:
    """Each kind of severance in the last block, as in the published model, against none."""
    rows: list[Row] = []
    for tower in options.towers:
        side = SIDES[tower]
        model = clip_model(tower, depth=None, anchors=False, seed=options.seed).to(options.device, options.dtype)
        resized = resize_photo(options.photo, model.settings.resize)
        pixels = to_pixels(resized, model.encoder.normalization, 32, device=options.device, dtype=options.dtype)[None]
        masks = elliptic_masks(MASKS, (pixels.shape[-2] // 4, pixels.shape[-1] // 4), options.seed)
        masks = masks.to(options.device, options.dtype)[None]
        severances = {kind: Severance(kind, (-1,), class_token="severed") for kind in KINDS}
        cases: dict[str, Case] = {
            kind: partial(_encode, model, pixels, masks, severance) for kind, severance in severances.items()
        }
        times = time_alternately(cases, options.repeats, options.device, warm_up=2)
        for kind in KINDS[1:]:
            goal = 1.0 if kind in ("self", "gate", "gate-normalized") else None
            rows.append(compare(f"{tower} at {side}, {kind}", times[kind], times["none"], "nothing severed", goal))
    return Measurement(
        "severed",
        f"The encoder with its last block severed by {MASKS} masks, and with nothing severed",
        tuple(rows),
        "affinity still computes attention between all patches, so it is not expected to be faster and has no goal.",
    )


def measure_utilization(options: BenchOptions) -> Measurement:
    """The rate of the encoder as a share of the rate of a matrix product."""
    rows: list[Row] = []
    on_cpu = options.device.type == "cpu"
    batches = (1,) if on_cpu else (1, 8, 32)
    for tower in options.towers:
        side = SIDES[tower]
        model = clip_model(tower, depth=None, anchors=False, seed=options.seed).to(options.device, options.dtype)
        for batch in batches:
            pixels = torch.randn(batch, 3, side, side, device=options.device, dtype=options.dtype)
            product = MatrixProduct(options.device, options.dtype, 2048 if on_cpu else 8192)
            cases: dict[str, Case] = {"encoder": partial(_encode, model, pixels), "product": product}
            times = time_alternately(cases, options.repeats, options.device, warm_up=2)
            operations = batch * encoder_flops(TOWERS[tower], (side, side))
            rate, peak = operations / times["encoder"].p50, product.flops / times["product"].p50
            figures = {
                "GFLOP": operations / 1e9,
                "GFLOP/s": rate / 1e9,
                "product GFLOP/s": peak / 1e9,
                "share": rate / peak,
            }
            has_goal = tower == "B/16" and batch == batches[-1] and options.device.type in SHARE_GOALS
            goal = Goal("share", SHARE_GOALS[options.device.type]) if has_goal else None
            rows.append(Row(f"{tower} at {side}, batch {batch}", times["encoder"], figures=figures, goal=goal))
    return Measurement("machine", "How much of the machine the encoder uses", tuple(rows))


def measure_variants(options: BenchOptions) -> Measurement:
    """float32 against bfloat16, int8 (on a CPU) and compiled code, and how far each moves the features."""
    rows: list[Row] = []
    for tower in options.towers[:1] if options.quick else options.towers:
        model = clip_model(tower, depth=None, anchors=False, seed=options.seed).to(options.device)
        side = SIDES[tower]
        generator = torch.Generator().manual_seed(options.seed)
        pixels = torch.randn(1, 3, side, side, generator=generator).to(options.device)
        encoder: Any = model.encoder
        half = copy.deepcopy(encoder).to(torch.bfloat16)
        cases = {
            "float32": partial(_patches, encoder, pixels),
            "bfloat16": partial(_patches, half, pixels.bfloat16()),
        }
        if options.device.type == "cpu":
            int8 = copy.deepcopy(encoder)
            to_int8(int8)
            cases["int8"] = partial(_patches, int8, pixels)
        compile_seconds = 0.0
        if not options.quick:
            compiled: Any = torch.compile(encoder)
            cases["compiled"] = partial(_patches, compiled, pixels)
            started = time.perf_counter()
            cases["compiled"]()
            compile_seconds = time.perf_counter() - started
        reference = cases["float32"]()
        times = time_alternately(cases, options.repeats, options.device)
        for key in list(cases)[1:]:
            cosine = float(F.cosine_similarity(_flatten(reference), _flatten(cases[key]()), dim=-1).mean())
            figures = {"cosine of patches": cosine}
            if key == "compiled":
                figures["s to compile"] = compile_seconds
            rows.append(compare(f"{tower} at {side}, {key}", times[key], times["float32"], "float32", **figures))
    if options.device.type == "cpu":
        rows += _maps_in_int8(options)
    return Measurement("variants", "The encoder in other precisions and compiled, and in float32", tuple(rows))


def _maps_in_int8(options: BenchOptions) -> list[Row]:
    """Photo to map with an encoder in int8, as ``load(dtype="int8")`` makes it, against float32."""
    from deop.zoo import load

    exact, int8 = (load("nano", engine="torch", device="cpu", dtype=dtype) for dtype in (None, "int8"))
    models = {"nano": (exact, int8, NANO_NAMES)}
    if "B/16" in options.towers and not options.quick:
        exact, int8 = (clip_model("B/16", seed=options.seed) for _ in range(2))
        to_int8(int8.encoder)
        models["B/16 at 512, R50"] = (exact, int8, distinct_names(20))
    rows = []
    for label, (exact, int8, names) in models.items():
        vocabulary = exact.vocabulary(names)
        exact.cache = int8.cache = None
        cases: dict[str, Case] = {
            "float32": partial(exact.segment, options.photo, vocabulary),
            "int8": partial(int8.segment, options.photo, vocabulary),
        }
        times = time_alternately(cases, options.repeats, options.device)
        rows.append(compare(f"{label}, photo to map, int8", times["int8"], times["float32"], "float32"))
    return rows


@torch.inference_mode()
def _patches(encoder: nn.Module, pixels: Tensor) -> Tensor:
    return encoder(pixels).patches


def _flatten(patches: Tensor) -> Tensor:
    return patches.float().flatten(2).mT
