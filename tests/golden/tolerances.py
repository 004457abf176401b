"""How far an answer may be from its golden file on another processor."""

from dataclasses import dataclass

from tests.golden.files import Difference


@dataclass(frozen=True)
class Tolerance:
    """The smallest share of equal labels, and the largest difference of a number."""

    equal: float
    largest: float


FLOAT32, INT8 = Tolerance(0.99, 2e-4), Tolerance(0.98, 5e-3)
SATURATING = Tolerance(0.95, 0.1)
"""Int8 in ONNX Runtime, whose kernels for AVX2 without VNNI saturate large sums.

The three come from what was measured with the kernels of other processors (docs/promises.md), with a margin.
"""


def tolerance(name: str) -> Tolerance:
    """The tolerance of a case."""
    if name.endswith("onnx-int8"):
        return SATURATING
    return INT8 if name.endswith("int8") else FLOAT32


def fits(name: str, difference: Difference) -> bool:
    """Whether an answer is the stored one but for rounding."""
    allowed = tolerance(name)
    return not difference.form and difference.equal >= allowed.equal and difference.largest <= allowed.largest
