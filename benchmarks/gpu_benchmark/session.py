"""What the parts of the benchmark share: models, photos, the measured peak, and the best figure for each goal."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deop.bench.subjects import synthetic_photo
from deop.model import DeOP
from gpu_benchmark.fixed_pass import FixedPass, Scale
from gpu_benchmark.variants import CuDNNAttention, fold_norms, fused_quick_gelu, with_activation

RATE = "B/16 at batch 32, images per second"
LATENCY = "B/16 at batch 1, ms (graph)"
ENCODER_SHARE = "B/16 encoder at batch 32, share of the measured peak"
TWO_STREAM_RATIO = "two streams at 100 masks, duration relative to one pass"
WAITS = "waits for the device inside a pass"

GOALS: dict[str, tuple[float, bool]] = {
    RATE: (250, True),
    LATENCY: (10, False),
    ENCODER_SHARE: (0.45, True),
    TWO_STREAM_RATIO: (12, True),
    WAITS: (0, False),
}
"""Bound of each figure on an H200, and whether it is a minimum."""


@dataclass
class Session:
    """The state of a run.

    Attributes:
        scale: sizes.
        device: device of the models.
        dtype: precision of their weights.
        seed: random seed of their weights.
        peak: measured rate of a matrix product in operations per second.
        best: best figure for each goal, and the case that gave it.
        encoder_variant: name of the fastest variant of the encoder, without a compiler; "" for the encoder itself.
        models: models by tower.
    """

    scale: Scale
    device: torch.device
    dtype: torch.dtype
    seed: int
    peak: float = float("nan")
    best: dict[str, tuple[float, str]] = field(default_factory=dict)
    encoder_variant: str = ""
    models: dict[str, DeOP] = field(default_factory=dict)

    def model(self, tower: str) -> DeOP:
        """The model of a tower, created once."""
        if tower not in self.models:
            self.models[tower] = self.scale.create_model(tower, self.device, self.dtype, self.seed)
        return self.models[tower]

    def record(self, goal: str, value: float, source: str) -> None:
        """Keep a figure for a goal if it is the best so far."""
        minimum = GOALS[goal][1]
        best = self.best.get(goal)
        if best is None or (value > best[0] if minimum else value < best[0]):
            self.best[goal] = value, source

    def fastest_pass(self, model: DeOP, batch: int) -> FixedPass:
        """A pass with the fastest variants of both networks."""
        encoder: Any = model.encoder
        if self.encoder_variant in ("fused activation", "both"):
            encoder = with_activation(encoder, fused_quick_gelu())
        if self.encoder_variant in ("cuDNN attention", "both"):
            encoder = CuDNNAttention(encoder)
        proposer: Any = model.proposer
        network = fold_norms(proposer.network.network, fuse_relu=self.device.type == "cuda")
        return FixedPass(model, self.scale, batch, encoder=encoder, network=network)

    def photos(self, count: int, side: int) -> list[np.ndarray]:
        """Synthetic photos (side, side, 3), at most four different ones."""
        photos = [synthetic_photo(side, side, seed) for seed in range(min(count, 4))]
        return [photos[index % 4] for index in range(count)]

    def peak_memory(self) -> dict[str, float]:
        """Peak memory on the device since the last call, as an entry of a row."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"peak MiB": peak}
