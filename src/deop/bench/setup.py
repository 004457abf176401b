"""What a bench is told: where it runs and how long."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Setup:
    """Settings of a bench.

    Attributes:
        device: where models work.
        dtype: of their weights.
        photo: (H, W, 3) uint8, the same for all.
        repeats: turns of each subject.
        quick: fewer sizes, counts and turns, to see that all works; figures are then no result.
        seed: of weights, masks and synthetic photos.
        towers: of CLIP, names of ``subjects.TOWERS``.
    """

    device: torch.device
    dtype: torch.dtype
    photo: np.ndarray
    repeats: int = 5
    quick: bool = False
    seed: int = 0
    towers: tuple[str, ...] = ("B/16", "L/14")

    @property
    def few(self) -> int:
        """Turns of what takes long."""
        return 1 if self.quick else max(3, self.repeats // 2)

    def some(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """The values of a series; the first two alone where it is to be quick."""
        return values[:2] if self.quick else values
