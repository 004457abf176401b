"""Sums up losses between log entries and detects the first step with a loss or gradient that is not finite."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class LossMonitor:
    """Losses since the last log entry. Values stay on the device until they are needed, so that it need not wait.

    Args:
        accelerator: accelerate's ``Accelerator``.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.sums: dict[str, Tensor] = {}
        self.steps = 0  # in the sums
        self.not_finite: list[str] = []  # losses that were not finite in a log entry
        self.first_bad = torch.full((), -1, dtype=torch.long, device=accelerator.device)

    def add(self, values: Mapping[str, Tensor], parts: int) -> None:
        """Add the values of one of the ``parts`` micro-batches of a step."""
        for key, value in values.items():
            before = self.sums.get(key)
            value = value.detach().float() / parts
            self.sums[key] = value if before is None else before + value

    def check(self, step: int, loss: Tensor, norm: Tensor | None) -> None:
        """Remember the step, counted from 0, if its loss or gradient norm is not finite."""
        bad = ~loss.detach().isfinite()
        if norm is not None and self.accelerator.scaler is None:  # a gradient scaler skips such a step by itself
            bad = bad | ~norm.isfinite()
        self.first_bad = torch.where(bad & (self.first_bad < 0), step, self.first_bad)

    def means(self) -> dict[str, float]:
        """The mean of each loss over the steps since the last call, and over the processes."""
        keys = sorted(self.sums)
        values = torch.stack([self.sums[key] for key in keys]) / self.steps
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        means: dict[str, float] = dict(zip(keys, values.tolist(), strict=True))
        self.not_finite = self.not_finite or [key for key, value in means.items() if not np.isfinite(value)]
        self.sums, self.steps = {}, 0
        return means

    def first_bad_step(self) -> int | None:
        """The first step, counted from 0, with a loss or gradient that is not finite, in any process."""
        first = self.first_bad
        if self.accelerator.num_processes > 1:
            first = self.accelerator.reduce(first + 1, "max") - 1
        return int(first) if int(first) >= 0 else None

    def culprits(self) -> list[str]:
        """Names of the losses that are not finite; empty if it is only the gradient."""
        return self.not_finite or sorted(key for key, value in self.sums.items() if not bool(value.isfinite()))
