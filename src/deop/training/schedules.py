"""Learning-rate schedules."""

import math
from dataclasses import dataclass

from deop.errors import SettingError

KINDS = ("poly", "cosine", "constant")
WARMUPS = ("linear", "constant")


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a factor of the base rate.

    Attributes:
        kind: "poly": (1 - done)^power; "cosine": (1 + cos(pi done)) / 2; "constant".
        power: exponent of "poly", greater than 0; other kinds ignore it.
        floor: factor at the end of the run, in [0, 1].
        warmup: number of steps at the start in which the factor is reduced further.
        warmup_kind: "linear": multiplied by (step + 1) / warmup; "constant": by ``warmup_share``.
        warmup_share: factor of a constant warm-up, in (0, 1].

    Raises:
        SettingError: an unknown kind, or a value out of range.

    >>> schedule = Schedule("cosine", warmup=10)
    >>> schedule.share(0, done=0.0), schedule.share(50, done=0.5)
    (0.1, 0.5)
    """

    kind: str = "poly"
    power: float = 0.9
    floor: float = 0.0
    warmup: int = 0
    warmup_kind: str = "linear"
    warmup_share: float = 1.0

    def __post_init__(self) -> None:
        for value, choices, what in ((self.kind, KINDS, "schedule"), (self.warmup_kind, WARMUPS, "warm-up")):
            if value not in choices:
                raise SettingError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")
        for name, valid, expected in (
            ("power", self.power > 0, "a number above 0"),
            ("floor", 0 <= self.floor <= 1, "a number in [0, 1]"),
            ("warmup", self.warmup >= 0, "0 or more steps"),
            ("warmup_share", 0 < self.warmup_share <= 1, "a number in (0, 1]"),
        ):
            if not valid:
                raise SettingError(f"{name} of the schedule is {getattr(self, name)}: expected {expected}")
        if self.warmup_share != 1 and self.warmup_kind == "linear":
            raise SettingError(
                "warmup_share has no effect on a linear warm-up: set warmup_kind to constant, or omit it"
            )

    def share(self, step: int, done: float) -> float:
        """The factor of the base rate.

        Args:
            step: number of steps taken so far.
            done: fraction of the run that is complete, in [0, 1].
        """
        done = min(max(done, 0.0), 1.0)
        decayed = {"poly": (1 - done) ** self.power, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}
        share = self.floor + (1 - self.floor) * decayed[self.kind]
        if step >= self.warmup:
            return share
        return share * ((step + 1) / self.warmup if self.warmup_kind == "linear" else self.warmup_share)
