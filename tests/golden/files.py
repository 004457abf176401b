"""Reading, writing and comparing golden files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deop import __version__
from tests.golden.cases import Answer

FOLDER = Path(__file__).parent / "answers"
DIGITS = 6
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Difference:
    """How far an answer is from its golden file.

    Attributes:
        equal: share of equal labels; 1 where a case has no labels.
        largest: the largest difference of a number.
        where: the name of these numbers.
        form: what does not fit at all, such as other names of numbers or other shapes; "" if everything fits.
    """

    equal: float = 1.0
    largest: float = 0.0
    where: str = ""
    form: str = ""


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def to_json(answer: Answer, reason: str) -> str:
    """The text of a golden file: one line for each row of labels and for each name of numbers."""
    labels = {
        photo: ["".join("." if label < 0 else LETTERS[label] for label in row) for row in grid]
        for photo, grid in answer.labels.items()
    }
    values = {name: rounded(np.asarray(array, np.float64)) for name, array in answer.values.items()}
    parts = [f'"release": {json.dumps(__version__)}', f'"reason": {json.dumps(reason)}']
    parts += [f'"labels": {json.dumps(labels, indent=2)}']
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(array)}" for name, array in values.items())
    return "{\n" + ",\n".join([*parts, f'"values": {{\n{lines}\n}}']) + "\n}\n"


def rounded(array: np.ndarray) -> Any:
    if array.ndim:
        return [rounded(part) for part in array]
    return float(f"{array:.{DIGITS}g}")


def read(name: str) -> Answer:
    """The stored answer of a case."""
    content = json.loads(file_of(name).read_text(encoding="utf-8"))
    labels = {
        photo: np.array([[LETTERS.find(letter) for letter in row] for row in rows])
        for photo, rows in content["labels"].items()
    }
    return Answer(labels, {key: np.array(values) for key, values in content["values"].items()})


def compare(stored: Answer, answer: Answer) -> Difference:
    """The difference of an answer from the stored one."""
    for kind in ("labels", "values"):
        one, other = getattr(stored, kind), getattr(answer, kind)
        shapes = [{key: array.shape for key, array in group.items()} for group in (one, other)]
        if shapes[0] != shapes[1]:
            return Difference(form=f"{kind}: stored {shapes[0]}, now {shapes[1]}")
    equal = [stored.labels[photo] == grid for photo, grid in answer.labels.items()]
    largest = {key: float(np.abs(stored.values[key] - array).max()) for key, array in answer.values.items()}
    if not all(np.isfinite(array).all() for array in answer.values.values()):
        return Difference(form="values: some are not finite")
    where = max(largest, key=largest.__getitem__)
    share = float(np.concatenate([grid.ravel() for grid in equal]).mean()) if equal else 1.0
    return Difference(share, largest[where], where)
