"""Minimum scores of names: one for all of them, or one for each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Union

from deop.errors import SettingError
from deop.text.vocabulary import Vocabulary, name_key, shorten

OTHER_NAMES = "*"
"""Key of a mapping of thresholds that stands for all names that the mapping does not list."""

ThresholdValue = Union[float, str, Mapping[str, float], "Thresholds", None]
"""Every form in which thresholds can be passed."""


@dataclass(frozen=True)
class Thresholds:
    """Minimum scores of names.

    Attributes:
        default: minimum score of names that are not in ``by_name``, in [0, 1]; None: the model's setting.
        by_name: pairs (name, minimum score in [0, 1]). A synonym stands for its name; case does not matter.
    """

    default: float | None = None
    by_name: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, value: "float | str | Mapping[str, float] | Thresholds | None") -> "Thresholds":
        """Read thresholds as people write them.

        Args:
            value: a number in [0, 1] for all names; a mapping of names to numbers, in which "*" stands for all other
                names; or a string with both, ``"0.3, dog=0.6"``, which is split at semicolons instead if it has any.
                None: the model's setting for all names.

        Raises:
            SettingError: a value that is not a number in [0, 1], a name that is listed twice, or another type.

        >>> Thresholds.parse("0.3, dog=0.6")
        Thresholds(default=0.3, by_name=(('dog', 0.6),))
        >>> Thresholds.parse({"*": 0.3, "dog": 0.6}) == Thresholds.parse("0.3, dog=0.6")
        True
        """
        if isinstance(value, Thresholds):
            return value
        if value is None:
            return cls()
        if isinstance(value, Mapping):
            entries = [(name, _number(number, name)) for name, number in value.items()]
        elif isinstance(value, str):
            entries = _entries(value)
        else:
            return cls(_number(value, None))
        default: float | None = None
        by_name: dict[str, tuple[str, float]] = {}
        for name, number in entries:
            if not isinstance(name, str):
                raise SettingError(
                    f"thresholds are listed by name, not by {name!r}: give a mapping of names to numbers"
                )
            if name == OTHER_NAMES:
                default = number
            elif name_key(name) in by_name:
                raise SettingError(f"the threshold of {shorten(name)!r} is listed twice: remove one of them")
            else:
                by_name[name_key(name)] = (name, number)
        return cls(default, tuple(by_name.values()))

    def values(self, vocabulary: Vocabulary, model_default: float) -> tuple[float, ...]:
        """The minimum score of each of the K names of a vocabulary.

        Args:
            vocabulary: the names.
            model_default: the model's setting, for names without a threshold of their own, in [0, 1].

        Raises:
            SettingError: a threshold for a name that the vocabulary does not have.
        """
        default = model_default if self.default is None else self.default
        if not self.by_name:
            return (default,) * len(vocabulary.names)
        index_of = {name_key(text): k for k, texts in enumerate(vocabulary.synonyms) for text in texts}
        values = [default] * len(vocabulary.names)
        for name, number in self.by_name:
            index = index_of.get(name_key(name))
            if index is None:
                known = ", ".join(shorten(text) for text in vocabulary.names[:8])
                raise SettingError(
                    f"there is a threshold for {shorten(name)!r}, which is not among the names ({known}"
                    f"{', ...' if len(vocabulary.names) > 8 else ''}): write it as in the names"
                )
            values[index] = number
        return tuple(values)

    def record(self, model_default: float) -> float | dict[str, float]:
        """The thresholds as saved with a result: a number, or a mapping that ``parse`` reads."""
        default = model_default if self.default is None else self.default
        return {OTHER_NAMES: default, **dict(self.by_name)} if self.by_name else default


def _entries(text: str) -> list[tuple[str, float]]:
    """The pairs of a string; a number without a name stands for all other names."""
    entries: list[tuple[str, float]] = []
    for part in re.split(r"[;\n]" if ";" in text else r"[,\n]", text):
        if not part.strip():
            continue
        name, _, number = part.rpartition("=")
        name = name.strip() or OTHER_NAMES
        if name == OTHER_NAMES and any(other == OTHER_NAMES for other, _ in entries):
            raise SettingError(f"thresholds {text!r} have two numbers without a name: write NAME=NUMBER for the others")
        try:
            value = float(number)
        except ValueError:
            raise SettingError(
                f"{part.strip()!r} is not a threshold: write a number in [0, 1], or NAME=NUMBER, as in '0.3, dog=0.6'"
            ) from None
        entries.append((name, _number(value, name)))
    if not entries:
        raise SettingError(f"thresholds {text!r} are empty: write a number in [0, 1], or NAME=NUMBER")
    return entries


def _number(value: Any, name: Any) -> float:
    place = "" if name in (None, OTHER_NAMES) else f" of {shorten(str(name))!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingError(f"threshold{place} must be a number in [0, 1], not {value!r}")
    number = float(value)
    if not 0 <= number <= 1:  # also NaN
        raise SettingError(f"threshold{place} {value} is not in [0, 1]")
    return number
