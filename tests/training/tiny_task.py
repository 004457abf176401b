"""A tiny run that tests kill at any point: ``python -m tests.training.tiny_task OUT [name=value ...]``."""

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from deop.training import checkpoint, loop
from deop.training.schedules import Schedule
from deop.training.task import Group, LoopSettings, Optimizer, Task


class Points:
    """Random points in the plane, labelled by whether they lie in a circle. The noise uses all three random states."""

    def __init__(self, noise: bool = True) -> None:
        self.noise = noise

    def __call__(self, rows: range):
        x = torch.stack([torch.from_numpy(np.random.default_rng(row).normal(size=2)).float() for row in rows])
        if self.noise:
            x = x + 0.1 * torch.randn(()) + 0.1 * random.random() + 0.1 * float(np.random.rand())  # noqa: NPY002
        return {"x": x, "y": (x.norm(dim=1) < 1).float()}


class Circle(Task):
    def __init__(self, *, noise: bool = True, dropout: float = 0.2, nan_at: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.frozen = nn.Linear(3, 3)
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if not noise:
            self.net[1] = nn.Identity()  # batch statistics would differ between processes
        self.batches = Points(noise)
        self.nan_at, self.calls = nan_at, 0

    def forward(self, batch):
        self.calls += 1
        loss = F.binary_cross_entropy_with_logits(self.net(batch["x"])[:, 0], batch["y"])
        if self.calls == self.nan_at:
            loss = loss * float("nan")
        return {"entropy": loss, "small": 1e-3 * self.net[0].weight.square().mean()}

    def groups(self):
        names = [name for name, _ in self.named_parameters() if name.startswith("net")]
        return [Group(names[:2], 1e-2, 0.1), Group(names[2:], 3e-2)]

    def validate(self):
        x = torch.stack([torch.linspace(-2, 2, 100), torch.zeros(100)], 1)
        right = ((self.net(x)[:, 0] > 0) == (x.norm(dim=1) < 1)).float().mean()
        return {"right": float(right)}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in self.net.state_dict().items()}, folder / "net.safetensors")


def settings_of(**changes) -> LoopSettings:
    return LoopSettings(
        **{
            "iterations": 12,
            "batch": 8,
            "accumulate": 2,
            "clip": 1.0,
            "ema": 0.9,
            "save_every": 2,
            "log_every": 1,
            "validate_every": 3,
            "best": "right",
            "optimizer": Optimizer("adamw"),
            "schedule": Schedule("cosine", warmup=3),
            **changes,
        }
    )


def die_in_save(number: int) -> None:
    """Kill the process (SIGKILL) before the n-th call that flushes or removes a file of a checkpoint."""
    counter = iter(range(1, 1 << 30))

    def killing(function):
        def call(*arguments, **options):
            if next(counter) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    checkpoint._flush = killing(checkpoint._flush)
    checkpoint.shutil.rmtree = killing(checkpoint.shutil.rmtree)


class DiesAt(Points):
    """Batches that send a signal to the process just before a step."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__()
        self.step, self.number = step, number

    def __call__(self, rows: range):
        if rows.start == 8 * self.step:
            os.kill(os.getpid(), self.number)
        return super().__call__(rows)


def main() -> None:
    out, *pairs = sys.argv[1:]
    options = dict(pair.split("=") for pair in pairs)
    torch.set_num_threads(1)
    plain = "plain" in options
    task = Circle(noise=not plain, dropout=0.0 if plain else 0.2)
    if "die_at" in options:
        task.batches = DiesAt(int(options["die_at"]), signal.Signals[options.get("signal", "SIGKILL")])
    if "die_in_save" in options:
        die_in_save(int(options["die_in_save"]))
    if "room" in options:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(options["room"]), resource.RLIM_INFINITY))
    changes = {"optimizer": Optimizer("sgd"), "validate_every": 0, "best": ""} if plain else {}
    for key in ("workers", "accumulate"):
        if key in options:
            changes[key] = int(options[key])
    loop.fit(task, settings_of(**changes), Path(out), resume="resume" in options, device="cpu")


if __name__ == "__main__":
    main()
