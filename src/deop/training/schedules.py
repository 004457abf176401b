"""How the learning rate goes over a run."""

import math
from dataclasses import dataclass

from deop.errors import SettingError

KINDS = ("poly", "cosine", "constant")
WARMUPS = ("linear", "constant")


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of its base, by how much of the run is done.

    Attributes:
        kind: "poly": (1 - done)^power; "cosine": (1 + cos(pi done)) / 2; "constant".
        power: of "poly".
        floor: share that is left at the end.
        warmup: steps at the beginning during which the share is multiplied further.
        warmup_kind: "linear": by (step + 1) / warmup; "constant": by ``warmup_share``.
        warmup_share: of a constant warm-up.
    """

    kind: str = "poly"
    power: float = 0.9
    floor: float = 0.0
    warmup: int = 0
    warmup_kind: str = "linear"
    warmup_share: float = 1.0

    def __post_init__(self) -> None:
        for value, known, what in ((self.kind, KINDS, "schedule"), (self.warmup_kind, WARMUPS, "warm-up")):
            if value not in known:
                raise SettingError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")

    def share(self, step: int, done: float) -> float:
        """The share of the base rate.

        Args:
            step: steps taken so far, counted from 0.
            done: share of the run that is done, in [0, 1].
        """
        done = min(max(done, 0.0), 1.0)
        left = {"poly": (1 - done) ** self.power, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}
        share = self.floor + (1 - self.floor) * left[self.kind]
        if step >= self.warmup:
            return share
        return share * ((step + 1) / self.warmup if self.warmup_kind == "linear" else self.warmup_share)
