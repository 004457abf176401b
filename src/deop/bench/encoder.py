"""The encoder: severed and not, and how much of the machine it uses."""

from functools import partial

import torch
from torch import Tensor

from deop.bench.flops import Product, encoder_flops
from deop.bench.report import Goal, Part, Row, faster
from deop.bench.setup import Setup
from deop.bench.subjects import SIDES, TOWERS, blobs, clip_model
from deop.bench.timing import Subject, take_turns
from deop.encoders.severance import KINDS, Severance
from deop.images.preprocessing import resize_photo, to_pixels
from deop.model import DeOP

MASKS = 100
SHARE_GOALS = {"cpu": 0.65, "cuda": 0.45}
"""Of the rate of a matrix product."""


def severed(setup: Setup) -> Part:
    """Each kind of severance against none; the released model severs the last block."""
    rows: list[Row] = []
    for tower in setup.towers:
        side = SIDES[tower]
        model = clip_model(tower, depth=None, anchors=False, seed=setup.seed).to(setup.device, setup.dtype)
        pixels = to_pixels(resize_photo(setup.photo, model.settings.resize), model.encoder.normalization, 32,
                           setup.device, setup.dtype)[None]  # fmt: skip
        masks = blobs(MASKS, (pixels.shape[-2] // 4, pixels.shape[-1] // 4), setup.seed)
        masks = masks.to(setup.device, setup.dtype)[None]

        kinds = {kind: Severance(kind, (-1,), class_token="severed") for kind in KINDS}
        subjects = {kind: partial(_encode, model, pixels, masks, severance) for kind, severance in kinds.items()}
        found = take_turns(subjects, setup.repeats, setup.device, warm=2)
        for kind in KINDS[1:]:
            row = faster(f"{tower} at {side}, {kind}", found[kind], found["none"], "nothing severed")
            goal = Goal("ratio", 1.0) if kind in ("self", "gate", "gate-normalized") else None
            rows.append(Row(row.label, row.times, row.against, row.figures, goal))
    return Part(
        "severed",
        f"The encoder with its last block severed by {MASKS} masks, and with nothing severed",
        tuple(rows),
        "affinity mixes every patch with every other still; it is no cheaper by design, and has no goal.",
    )


@torch.inference_mode()
def _encode(model: DeOP, pixels: Tensor, masks: Tensor | None = None, severance: Severance | None = None) -> object:
    return model.encoder(pixels, masks, severance=severance)


def machine(setup: Setup) -> Part:
    """The rate of the encoder over that of a matrix product, in turns of one process."""
    rows: list[Row] = []
    batches = (1,) if setup.device.type == "cpu" else (1, 8, 32)
    for tower in setup.towers:
        side = SIDES[tower]
        model = clip_model(tower, depth=None, anchors=False, seed=setup.seed).to(setup.device, setup.dtype)
        for batch in batches:
            pixels = torch.randn(batch, 3, side, side, device=setup.device, dtype=setup.dtype)
            product = Product(setup.device, setup.dtype, 2048 if setup.device.type == "cpu" else 8192)

            subjects: dict[str, Subject] = {"encoder": partial(_encode, model, pixels), "product": product}
            found = take_turns(subjects, setup.repeats, setup.device, warm=2)
            done = batch * encoder_flops(TOWERS[tower], (side, side))
            rate, peak = done / found["encoder"].p50, product.flops / found["product"].p50
            figures = {"GFLOP": done / 1e9, "GFLOP/s": rate / 1e9, "product GFLOP/s": peak / 1e9, "share": rate / peak}
            counts = tower == "B/16" and batch == batches[-1]
            share = SHARE_GOALS.get(setup.device.type) if counts else None
            goal = None if share is None else Goal("share", share)
            rows.append(Row(f"{tower} at {side}, batch {batch}", found["encoder"], figures=figures, goal=goal))
    return Part("machine", "How much of the machine the encoder uses", tuple(rows))
