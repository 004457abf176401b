"""How far the graphs of an exported folder agree with the model in torch, measured on two pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deop.arrays import to_float32
from deop.errors import SettingError
from deop.model import DeOP
from deop.runtime.model import Model
from deop.severance import Severance
from deop.surface import ModelSurface

SIZES = ((120, 176), (208, 136))
"""Height and width of the pictures: not those that the graphs were traced with."""
LIMITS = {"float32": 1e-3, "float16": 1e-2}
"""Largest difference of a cosine from 1; int8 is not limited, since the pictures are no photos."""
TEXTS = ("cat", "a dog on a wall", "sofa")


@dataclass(frozen=True)
class Agreement:
    """The largest differences over two pictures; None where there is nothing to compare.

    Attributes:
        regions: 1 - cosine of the embeddings of the model's own masks.
        masks: difference of the probabilities of these masks.
        given: 1 - cosine of the embeddings of given masks.
        text: 1 - cosine of the embeddings of three texts.
    """

    regions: float | None
    masks: float | None
    given: float
    text: float | None

    def __str__(self) -> str:
        parts = {"masks": self.masks, "regions": self.regions, "given masks": self.given, "texts": self.text}
        return ", ".join(f"{name} {value:.0e}" for name, value in parts.items() if value is not None)


def measure(model: DeOP, folder: Path, severance: Severance, precision: str) -> Agreement:
    """Compare the graphs of a folder with the model that they were exported from.

    Args:
        model: in float32 on the CPU.
        folder: the exported folder.
        severance: with which it was exported.
        precision: of its graphs.

    Raises:
        SettingError: they differ by more than rounding: a part of the model does not compute the same as a graph.
    """
    exported = Model.from_folder(folder, device="cpu")
    proposes = model.proposer is not None
    own, masks, given = [], [], []
    for index, size in enumerate(SIZES):
        picture = _picture(size, index)
        rectangles = _rectangles(size)
        given.append(_difference(*(_regions(one, picture, rectangles, severance) for one in (model, exported))))
        if proposes:
            expected, actual = (one.encode([picture], severance=severance)[0] for one in (model, exported))
            if len(expected.masks) == len(actual.masks):  # a duplicate may be found or not because of rounding
                own.append(_difference(expected.regions, actual.regions))
                probabilities = (1 / (1 + np.exp(-one.masks.logits)) for one in (expected, actual))
                masks.append(float(np.abs(np.subtract(*probabilities)).max(initial=0)))
    text = None
    if exported.config.onnx.text.kind == "clip":
        text = _difference(model.text.embed(TEXTS), exported.text.embed(TEXTS))
    agreement = Agreement(max(own, default=None), max(masks, default=None), max(given), text)
    limit = LIMITS.get(precision)
    worst = max(one for one in (agreement.regions, agreement.given, agreement.text, 0.0) if one is not None)
    if limit is not None and not worst <= limit:
        raise SettingError(
            f"the exported graphs do not compute the same as torch ({agreement}), so the folder was not written: this "
            "is a bug in deop or in the exporter of torch. Please report it with the name of the model"
        )
    return agreement


def _regions(model: ModelSurface, picture: np.ndarray, masks: np.ndarray, severance: Severance) -> Any:
    return model.encode([picture], [masks], severance=severance)[0].regions


def _difference(expected: Any, actual: Any) -> float:
    """The largest 1 - cosine of the rows of two arrays or tensors (n, C); 2 if one is not finite."""
    expected, actual = to_float32(expected), to_float32(actual)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    cosines = (expected * actual).sum(1) / np.maximum(lengths, 1e-12)
    cosines = np.where(lengths > 1e-12, cosines, 1)  # a mask outside all patches has the embedding 0
    return float(np.nan_to_num(np.abs(1 - cosines), nan=2.0).max(initial=0))


def _picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Noise of several scales, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    picture = np.zeros((*size, 3))
    for cell in (4, 16, 64):
        coarse = random.standard_normal((-(-size[0] // cell), -(-size[1] // cell), 3))
        picture += coarse.repeat(cell, 0).repeat(cell, 1)[: size[0], : size[1]]
    return (128 + 40 * picture).clip(0, 255).astype(np.uint8)


def _rectangles(size: tuple[int, int]) -> np.ndarray:
    """Three masks (3, H, W) bool."""
    masks = np.zeros((3, *size), bool)
    masks[0, : size[0] // 2] = masks[1, size[0] // 3 :, : size[1] // 2] = masks[2, :, size[1] // 4 :] = True
    return masks
